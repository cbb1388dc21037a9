//! Rights given up: for a moment, or for good. Knows ids and capabilities; must not know what they are needed for.
//! `terminal` is what a user may not do at the terminal of whoever has started us.

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

/// Becomes this user for good, with no right that he has not. To be called while there is one thread: capabilities are
/// each thread's own, and threads to come have those of whoever begins them.
///
/// # Errors
///
/// Something that we could do as root can be done still: then nothing else may be done.
pub(crate) fn give_up(user: &User, gains: Gains) -> Result<()> {
    let cannot = || format!("cannot become user {}", user.name);
    if gains == Gains::Refused {
        empty_bounding_set();
        // Before the change, as the kernel takes a filter then from whoever may do nothing else.
        set_no_new_privs(true).map_err(io::Error::from).with_context(cannot)?;
    }
    change(user).with_context(cannot)?;
    check(user).with_context(cannot)
}

/// Where another image of us has become this user, in this very process (O2): gives up what we have got by being executed
/// since, and looks whether there is nothing else. While there is one thread.
///
/// # Errors
///
/// We are not this user, or are more than he.
pub(crate) fn remain(user: &User) -> Result<()> {
    let cannot = || format!("cannot go on as user {}", user.name);
    // The file that we are executed from may have capabilities.
    lay_down().map_err(io::Error::from).with_context(cannot)?;
    // As after a change of user: nobody else who is this user looks into our memory.
    prctl::set_dumpable(false).with_context(cannot)?;
    check(user).with_context(cannot)
}

/// Whether it is as [`give_up`] has left it, what may be gained.
pub(crate) fn check_gains(user: &User, gains: Gains) -> Result<()> {
    let is_sealed = no_new_privs().map_err(io::Error::from)?;
    let name = &user.name;
    ensure!(
        gains == Gains::Kept || is_sealed,
        "cannot go on as user {name}: whatever is executed could gain rights"
    );
    Ok(())
}

/// As [`give_up`], between fork and exec: allocates nothing. The bounding set stays, and whoever is born here gets rights by
/// setuid programs as ever.
pub(crate) fn change(user: &User) -> io::Result<()> {
    // While we are root. Where it cannot be had, that was said.
    let _ = terminal::refuse_typing();
    // For a user who has no room for a keyring any more.
    leave_keyring()?;
    setgroups(&user.groups)?;
    setresgid(user.gid, user.gid, user.gid)?;
    setresuid(user.uid, user.uid, user.uid)?;
    // The kernel has taken them from who is root no more, but for those that exec(2) would pass on, and
    // for whoever has asked it not to (SECBIT_NO_SETUID_FIXUP).
    lay_down()?;
    leave_keyring()
}

/// Whoever has the session's keyring has what root has put there (keyrings(7)): begins with an empty one.
#[allow(unsafe_code)]
fn leave_keyring() -> io::Result<()> {
    // SAFETY: it takes no name, so that nothing of our memory is read.
    let joined =
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, 0_usize) };
    if joined >= 0 {
        return Ok(());
    }
    match Errno::last() {
        // There are none here, or a container lets nobody have one; or the user has no room.
        Errno::ENOSYS | Errno::EPERM | Errno::EDQUOT => Ok(()),
        errno => Err(errno.into()),
    }
}

/// Without a permitted capability there is no ambient one either (capabilities(7)).
fn lay_down() -> rustix::io::Result<()> {
    set_capabilities(None, NONE)
}

/// Does a deed with the rights of this user, for whom we are to take files: those that are opened stay open. Nobody: as we are.
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

/// Does it as the user, and as we are only where he is not permitted to.
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

/// What setuid programs could gain. Who may not take it from himself, as in some containers, keeps it.
fn empty_bounding_set() {
    let all = (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit));
    let known = all.take_while(|one| capability_is_in_bounding_set(*one).is_ok());
    known.for_each(|one| _ = remove_capability_from_bounding_set(one));
}

/// Whether there is no way back.
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
