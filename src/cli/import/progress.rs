//! How far an import has come: a bar on a terminal, else a line every two seconds.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::console::{Console, grouped};

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Choice {
    /// A bar on a terminal, else lines
    #[default]
    Auto,
    /// A bar
    Bar,
    /// A line every two seconds
    Lines,
    /// Not at all
    None,
}

/// The display of one import.
pub(super) enum Progress {
    /// A bar over the bytes of the file, since nobody knows how many rows it has.
    Bar(ProgressBar, Instant),
    /// Lines.
    Lines {
        /// When the import began.
        began: Instant,
        /// When the last line was written.
        told: Instant,
        /// The size of the file; 0 for a pipe.
        size: u64,
    },
    /// Nothing.
    Silent,
}

impl Progress {
    /// Begins to show the way through a file of that size.
    pub(super) fn new(choice: Choice, size: u64) -> Self {
        let began = Instant::now();
        let lines = Self::Lines { began, told: began, size };
        match choice {
            Choice::None => Self::Silent,
            Choice::Lines => lines,
            Choice::Auto | Choice::Bar if size > 0 && stderr().is_terminal() => Self::Bar(bar(size), began),
            Choice::Auto | Choice::Bar => lines,
        }
    }

    /// So many rows and bytes are done.
    pub(super) fn update(&mut self, rows: u64, bytes: u64, console: &mut Console<'_>) {
        match self {
            Self::Bar(bar, began) => {
                bar.set_message(so_far(rows, *began));
                bar.set_position(bytes);
            }
            Self::Lines { told, .. } if told.elapsed() < Duration::from_secs(2) => {}
            Self::Lines { began, told, size } => {
                let percent = bytes.saturating_mul(100).checked_div(*size);
                let percent = percent.map(|percent| format!("{percent} %, ")).unwrap_or_default();
                console.note(format_args!("{percent}{}", so_far(rows, *began)));
                *told = Instant::now();
            }
            Self::Silent => {}
        }
    }

    /// Leaves the screen to what comes next.
    pub(super) fn finish(self) {
        match self {
            Self::Bar(bar, _) => bar.finish_and_clear(),
            Self::Lines { .. } | Self::Silent => {}
        }
    }
}

fn bar(size: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("[{bar:30}] {percent} %, {msg}, {eta} left");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(size).with_style(style.progress_chars("=> "))
}

/// Rows, and rows a second.
fn so_far(rows: u64, began: Instant) -> String {
    let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    format!("{} rows, {}/s", grouped(rows), grouped(rows.saturating_mul(1000) / millis))
}
