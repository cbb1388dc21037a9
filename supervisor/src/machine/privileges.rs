//! The change of our rights, for a moment or for good. Knows ids and capabilities; must not know what they are needed
//! for. `terminal` keeps the processes of another user from typing into the terminal that we were started from.

mod terminal;

use std::io;
use std::iter;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{
    Gid, Uid, getegid, geteuid, getgroups, getresgid, getresuid, setegid, seteuid, setgroups,
    setresgid, setresuid, setuid,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, no_new_privs,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use super::user::User;
pub(crate) use terminal::is_open_to_typing;

/// What the programs that we start may gain by their files (setuid, capabilities), as a telnetd's login does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gains {
    Kept,
    /// We start none.
    Refused,
}

const NONE: CapabilitySets = CapabilitySets {
    effective: CapabilitySet::empty(),
    permitted: CapabilitySet::empty(),
    inheritable: CapabilitySet::empty(),
};

/// Becomes this user for good, with no right that the user has not. To be called while there is one thread: each thread
/// has its own capabilities, and a new thread has those of the thread that starts it.
///
/// # Errors
///
/// We still have some right of root's: then we must do nothing more but end.
pub(crate) fn give_up(user: &User, gains: Gains) -> Result<()> {
    let cannot = || format!("cannot become user {}", user.name);
    if gains == Gains::Refused {
        empty_bounding_set();
        // Before the change: with no_new_privs the kernel takes the filter that refuses typing also from a process
        // without CAP_SYS_ADMIN.
        set_no_new_privs(true).map_err(io::Error::from).with_context(cannot)?;
    }
    change(user).with_context(cannot)?;
    check(user).with_context(cannot)
}

/// Goes on as this user after a hand-over, where the old binary has changed to the user already, in this very process
/// (O2): gives up the rights that exec(2) has given us since, and checks that no others are left. To be called while
/// there is one thread.
///
/// # Errors
///
/// We are not this user, or have more rights than the user.
pub(crate) fn remain(user: &User) -> Result<()> {
    let cannot = || format!("cannot go on as user {}", user.name);
    // The file that we are executed from may have capabilities.
    clear_capabilities().map_err(io::Error::from).with_context(cannot)?;
    // As after a change of user: other processes of this user must not read our memory (ptrace(2)).
    prctl::set_dumpable(false).with_context(cannot)?;
    check(user).with_context(cannot)
}

/// Checks that programs cannot gain rights where [`give_up`] has refused that.
pub(crate) fn check_gains(user: &User, gains: Gains) -> Result<()> {
    let is_sealed = no_new_privs().map_err(io::Error::from)?;
    let name = &user.name;
    ensure!(
        gains == Gains::Kept || is_sealed,
        "cannot go on as user {name}: whatever is executed could gain rights"
    );
    Ok(())
}

/// Becomes this user, also between fork and exec: allocates nothing. Unlike in [`give_up`], the bounding set stays, and
/// the new process can gain rights by setuid programs as usual.
pub(crate) fn change(user: &User) -> io::Result<()> {
    // While we are root. If the kernel takes no filter, that is reported elsewhere (`is_open_to_typing`).
    let _ = terminal::refuse_typing();
    // Here as root, in case the user's quota has no room for another keyring.
    leave_keyring()?;
    setgroups(&user.groups)?;
    setresgid(user.gid, user.gid, user.gid)?;
    setresuid(user.uid, user.uid, user.uid)?;
    // The kernel has cleared the capabilities of a process that is root no more, except those that exec(2) would pass
    // on, and except in a process that has SECBIT_NO_SETUID_FIXUP.
    clear_capabilities()?;
    leave_keyring()
}

/// Changes to a new, empty session keyring: in the present one is what root has put there (keyrings(7)).
#[allow(unsafe_code)]
fn leave_keyring() -> io::Result<()> {
    // SAFETY: the keyring's name is null, so the kernel reads nothing of our memory.
    let joined =
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, 0_usize) };
    if joined >= 0 {
        return Ok(());
    }
    match Errno::last() {
        // The kernel has no keyrings, or a container forbids them, or the user's quota has no room for one.
        Errno::ENOSYS | Errno::EPERM | Errno::EDQUOT => Ok(()),
        errno => Err(errno.into()),
    }
}

/// Gives up all capabilities: without a permitted one there is no ambient one either (capabilities(7)).
fn clear_capabilities() -> rustix::io::Result<()> {
    set_capabilities(None, NONE)
}

/// Calls `deed` with the rights of this user, to open files for the user that we are to become: they stay open. Without
/// a user, calls it as we are.
pub(crate) fn as_user<T>(user: Option<&User>, deed: impl FnOnce() -> T) -> Result<T> {
    let Some(user) = user else { return Ok(deed()) };
    let cannot = || format!("cannot act as user {}", user.name);
    let (uid, gid) = (geteuid(), getegid());
    let groups = getgroups().with_context(cannot)?;
    assume(user.uid, user.gid, &user.groups).with_context(cannot)?;
    let done = deed();
    seteuid(uid)
        .and_then(|()| setegid(gid))
        .and_then(|()| setgroups(&groups))
        .with_context(cannot)?;
    Ok(done)
}

/// Calls `deed` as the user, and once more as we are only where the user is denied permission.
pub(crate) fn as_user_or_root<T>(user: Option<&User>, deed: impl Fn() -> Result<T>) -> Result<T> {
    match as_user(user, &deed)? {
        Err(refused) if user.is_some() && is_denied(&refused) => deed(),
        done => done,
    }
}

fn assume(uid: Uid, gid: Gid, groups: &[Gid]) -> nix::Result<()> {
    setgroups(groups)?;
    setegid(gid)?;
    seteuid(uid)
}

fn is_denied(failure: &anyhow::Error) -> bool {
    failure.chain().any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
    })
}

/// Empties the bounding set, which limits what setuid programs could gain. A process that may not do that, as in some
/// containers, keeps it.
fn empty_bounding_set() {
    let all = (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit));
    let known = all.take_while(|one| capability_is_in_bounding_set(*one).is_ok());
    known.for_each(|one| _ = remove_capability_from_bounding_set(one));
}

/// Checks that no other rights are left, and that root cannot be had back.
fn check(user: &User) -> Result<()> {
    let (uids, gids) = (getresuid()?, getresgid()?);
    let is_user = [uids.real, uids.effective, uids.saved].iter().all(|uid| *uid == user.uid);
    let is_group = [gids.real, gids.effective, gids.saved].iter().all(|gid| *gid == user.gid);
    ensure!(is_user && is_group, "the kernel has left another id");
    let groups = getgroups()?;
    let expected = user.groups.iter().chain(iter::once(&user.gid));
    let expected: Vec<_> = expected.collect();
    ensure!(groups.iter().all(|group| expected.contains(&group)), "another group is left");
    let left = capabilities(None).map_err(io::Error::from)?;
    ensure!(left == NONE, "capabilities are left");
    ensure!(setuid(Uid::from_raw(0)).is_err(), "root can be had back");
    Ok(())
}
