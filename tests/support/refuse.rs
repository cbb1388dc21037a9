//! Filters (seccomp(2)) that refuse system calls, to imitate an older kernel or a container that forbids much. A filter
//! holds for the command that is started with it, and for every process that this starts.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc::{
    self, BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, sock_filter,
};

/// A system call, or all calls from this number on, and when it is refused.
pub(crate) struct Refusal {
    call: libc::c_long,
    /// The BPF jump that compares the number of a call with `call`.
    jump: u32,
    conditions: Vec<Condition>,
    verdict: u32,
}

/// A condition on the lower 32 bits of an argument: a BPF jump, and the value that it compares with.
struct Condition {
    argument: u32,
    jump: u32,
    value: u32,
}

impl Refusal {
    /// `call` fails with this error: `ENOSYS` as in a kernel that is older than the call, `EPERM` as in a container whose
    /// filter does not know the call.
    pub(crate) fn of(call: libc::c_long, errno: i32) -> Self {
        Self::with_verdict(call, SECCOMP_RET_ERRNO | u32::try_from(errno).unwrap())
    }

    /// The same for this call and all that came to Linux after it: since 5.1 they are numbered in that
    /// order, and alike on all machines.
    pub(crate) fn since(call: libc::c_long, errno: i32) -> Self {
        Self { jump: BPF_JGE, ..Self::of(call, errno) }
    }

    /// This call is allowed, whatever a later refusal in the list says of it.
    pub(crate) fn never(call: libc::c_long) -> Self {
        Self::with_verdict(call, SECCOMP_RET_ALLOW)
    }

    /// No netlink socket for sock_diag(7).
    pub(crate) fn of_sock_diag(errno: i32) -> Self {
        Self::of(libc::SYS_socket, errno)
            .where_is(0, libc::AF_NETLINK.cast_unsigned())
            .where_is(2, libc::NETLINK_SOCK_DIAG.cast_unsigned())
    }

    /// A process that makes this call is killed.
    pub(crate) fn deadly(call: libc::c_long) -> Self {
        Self::with_verdict(call, SECCOMP_RET_KILL_PROCESS)
    }

    fn with_verdict(call: libc::c_long, verdict: u32) -> Self {
        Self { call, jump: BPF_JEQ, conditions: Vec::new(), verdict }
    }

    /// Only if this argument is `value`.
    pub(crate) fn where_is(mut self, argument: u32, value: u32) -> Self {
        self.conditions.push(Condition { argument, jump: BPF_JEQ, value });
        self
    }

    /// Only if this argument is at least `value`.
    pub(crate) fn where_is_at_least(mut self, argument: u32, value: u32) -> Self {
        self.conditions.push(Condition { argument, jump: BPF_JGE, value });
        self
    }

    /// The instructions. The call's number is in the accumulator before them, and again after them.
    fn instructions(&self) -> Vec<sock_filter> {
        let number = u32::try_from(self.call).unwrap();
        // A test, then a load and a test for each condition, the verdict, and a load. A test that fails jumps to the last load.
        let length = 2 * (1 + self.conditions.len()) + 1;
        let mut program = Vec::new();
        let over = |at: usize| u8::try_from(length - at - 2).unwrap();
        program.push(instruction(BPF_JMP | self.jump | BPF_K, over(0), number));
        for Condition { argument, jump, value } in &self.conditions {
            program.push(load(ARGUMENTS + 8 * argument));
            program.push(instruction(BPF_JMP | jump | BPF_K, over(program.len()), *value));
        }
        program.push(instruction(BPF_RET | BPF_K, 0, self.verdict));
        program.push(load(NUMBER));
        program
    }
}

/// Starts `command` so that these calls are refused to it.
pub(crate) fn refuse(command: &mut Command, refusals: &[Refusal]) {
    let mut program = vec![load(NUMBER)];
    program.extend(refusals.iter().flat_map(Refusal::instructions));
    program.push(instruction(BPF_RET | BPF_K, 0, SECCOMP_RET_ALLOW));
    let install = move || {
        let filter = libc::sock_fprog {
            len: u16::try_from(program.len()).unwrap(),
            filter: program.as_ptr().cast_mut(),
        };
        let none: libc::c_ulong = 0;
        // SAFETY: plain system calls; the kernel copies the program.
        unsafe {
            // Root needs no PR_SET_NO_NEW_PRIVS, which would take their rights from setuid programs.
            let may = libc::geteuid() == 0
                || libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, none, none, none) == 0;
            if may
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
                    == 0
            {
                return Ok(());
            }
        }
        Err(io::Error::last_os_error())
    };
    // SAFETY: between fork and exec it makes system calls and nothing else.
    unsafe { command.pre_exec(install) };
}

/// Offsets in the kernel's `struct seccomp_data`: of the call's number, and of the lower half of the first argument.
const NUMBER: u32 = 0;
const ARGUMENTS: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, offset)
}

/// `on_no`: how many instructions a test that fails passes over.
fn instruction(code: u32, on_no: u8, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap(), jt: 0, jf: on_no, k }
}
