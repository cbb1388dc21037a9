//! Rights given up: for a moment, or for good. Knows ids and capabilities; must not know what they are needed for.

use std::io;
use std::iter;

use anyhow::{Context, Result, ensure};
use nix::unistd::{
    Gid, Uid, getegid, geteuid, getgroups, getresgid, getresuid, setegid, seteuid, setgroups,
    setresgid, setresuid, setuid,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use super::user::User;

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
    }
    change(user).with_context(cannot)?;
    if gains == Gains::Refused {
        set_no_new_privs(true).map_err(io::Error::from).with_context(cannot)?;
    }
    check(user).with_context(cannot)
}

/// The same between fork and exec: allocates nothing. The bounding set stays, and whoever is born here gets rights by
/// setuid programs as ever.
pub(crate) fn change(user: &User) -> io::Result<()> {
    setgroups(&user.groups)?;
    setresgid(user.gid, user.gid, user.gid)?;
    setresuid(user.uid, user.uid, user.uid)?;
    // The kernel has taken them from who is root no more, but for those that exec(2) would pass on, and
    // for whoever has asked it not to (SECBIT_NO_SETUID_FIXUP).
    set_capabilities(None, NONE)?;
    Ok(())
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
