//! Files of a run that are on the disk, whole, when it is said that they are written. In: a path, bytes. Out: an error that says
//! what is left of the run. Knows no format.

use std::io::{Error, ErrorKind};
use std::path::Path;

use super::TrainError;
use crate::files;

/// Writes a file that nobody reads before all of it is on the disk.
///
/// # Errors
/// Why it could not be written.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    files::write(path, bytes).map_err(|error| failed(path, &error))
}

/// Gives a file new content, of which it has the old or the new one at any time.
///
/// # Errors
/// Why it could not be written.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let beside = path.with_extension("writing");
    write(&beside, bytes)?;
    files::rename(&beside, path).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &Error) -> TrainError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => TrainError::file(
            path,
            format!("{error}; what was saved before is whole: free some space and start the same command again"),
        ),
        _ => TrainError::file(path, error),
    }
}
