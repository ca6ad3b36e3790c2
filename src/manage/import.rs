//! Keys of another system, as they are: rows are read one by one, committed in batches, and may be brought again at any time.
//! What is there already counts as unchanged; rows that cannot be taken are told with their lines and reasons.

mod batch;
mod columns;
mod known;
mod row;
mod source;

pub use self::batch::{Against, BATCH, Batch, Importer, TOO_LONG, Terms};
pub use self::columns::{Columns, after_fields};
pub use self::row::{Raw, Reason, Rejection};
pub use self::source::{Format, Layout, Next, NotRows, Source};
