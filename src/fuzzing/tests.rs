//! Everything that a fuzzer has found worth keeping, again, and some thousand inputs near it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{TARGETS, Target};

/// What mutations put in.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"#",
    b"%",
    b"%2e",
    b"%2f",
    b"/",
    b"..",
    b";",
    b"&",
    b"=",
    b"+",
    b"api_key=",
    b"\0",
    b"\xff",
    b": ",
    b",",
    b" ",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"GET /public/x HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"0\r\n\r\n",
    b"Authorization: ",
    b"X-API-Key: 7e14204fcce1e00152b4\r\n",
    b"for=",
    b"[::ffff:10.0.0.1]",
    b"\"",
    b"- ",
    b"{",
    b"}",
];

/// A small generator: the same numbers in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end.max(1)
    }

    /// An input near one of the corpus.
    fn near(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(input.len() + 1);
            let end = (at + self.below(16)).min(input.len());
            match self.below(5) {
                0 => input.truncate(at),
                1 => drop(input.drain(at..end)),
                2 => drop(input.splice(at..at, WORDS[self.below(WORDS.len())].iter().copied())),
                3 => {
                    let other = &corpus[self.below(corpus.len())];
                    let from = self.below(other.len() + 1);
                    input.truncate(at);
                    input.extend_from_slice(&other[from..]);
                }
                _ => {
                    let byte = u8::try_from(self.below(256)).unwrap();
                    input.iter_mut().skip(at).take(1).for_each(|place| *place = byte);
                }
            }
        }
        input.truncate(4096);
        input
    }
}

/// A panic tells the input too: as a file it goes to the corpus.
fn run(target: &Target, input: &[u8]) {
    let held = std::panic::catch_unwind(|| (target.run)(input)).is_ok();
    assert!(held, "{} fails with \"{}\"", target.name, input.escape_ascii());
}

#[test]
fn the_corpus_and_what_is_near_it_hold() {
    for target in TARGETS {
        let name = target.name;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        assert!((1..=200).contains(&corpus.len()), "{name}: {} files", corpus.len());
        assert!(corpus.iter().all(|input| input.len() <= 4096), "{name}: a small input is enough");
        corpus.iter().for_each(|input| run(target, input));
        let (mut dice, began) = (Dice(0x9e37_79b9_7f4a_7c15), Instant::now());
        for _ in 0..5_000 {
            run(target, &dice.near(&corpus));
            if began.elapsed() > Duration::from_secs(2) {
                break;
            }
        }
    }
}
