//! Encryption of connections to targets, as it was asked for. Reads no file.

use bridge::tls::Authorities;

use crate::cli::Args;
use crate::usage::{UsageError, needs};

/// Who may have signed a target's certificate; none: targets are spoken to in the clear.
pub(super) fn authorities(args: &Args) -> Result<Option<Authorities>, UsageError> {
    match (args.ssl_target, &args.target_cafile) {
        (true, Some(path)) => Ok(Some(Authorities::File(path.clone()))),
        (true, None) => Ok(Some(Authorities::System)),
        (false, Some(_)) => Err(needs("--target-cafile", "--ssl-target")),
        (false, None) => Ok(None),
    }
}
