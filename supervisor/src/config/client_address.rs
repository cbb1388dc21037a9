//! The client's address that targets see, and from whom the program accepts connections, as the command line asks for
//! them. Opens nothing.

use bridge::{ProxyVersion, ShownAs};

use crate::cli::{Args, ClientAddressArg, ProgramAccess, RebindEngine};
use crate::usage::UsageError;

/// Who clients are shown as, and how the program learns of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddressSpec {
    pub(crate) shown: ShownAs,
    /// What `rebind.so` does about clients in the program, if anything.
    pub(crate) told: Option<Told>,
}

/// What `rebind.so` does in the program beside moving its port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) access: ProgramAccess,
    /// The option that asks for it.
    pub(crate) option: &'static str,
}

impl ClientAddressSpec {
    pub(super) fn new(args: &Args) -> Result<Self, UsageError> {
        let shown = match args.client_address.unwrap_or(ClientAddressArg::Hidden) {
            ClientAddressArg::Hidden => ShownAs::Hidden,
            ClientAddressArg::Loopback => ShownAs::Loopback,
            ClientAddressArg::Socket => ShownAs::Socket,
            ClientAddressArg::ProxyV1 => ShownAs::Proxy(ProxyVersion::V1),
            ClientAddressArg::ProxyV2 => ShownAs::Proxy(ProxyVersion::V2),
        };
        let access = args.program_access.unwrap_or(ProgramAccess::Anyone);
        let option = match (shown, access) {
            (ShownAs::Socket, _) => Some("--client-address=socket"),
            (_, ProgramAccess::Bridge) => Some("--program-access=bridge"),
            (_, ProgramAccess::Anyone) => None,
        };
        let Some(option) = option else { return Ok(Self { shown, told: None }) };
        if args.program.is_none() {
            return Err(UsageError(format!("option '{option}' needs a program after '--'")));
        }
        if args.rebind_engine == Some(RebindEngine::Seccomp) {
            return Err(UsageError(format!(
                "'{option}' and '--rebind-engine=seccomp' exclude each other: it takes rebind.so in the program"
            )));
        }
        Ok(Self { shown, told: Some(Told { access, option }) })
    }
}
