//! Users of this machine as the password and group files have them: their ids, groups and environment. Must not know
//! what is done with their rights.

use std::ffi::{CString, OsString};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Gid, Group, Uid, geteuid, getgrouplist};

use crate::config::{UserSpec, UsersSpec, one_user};

/// A user that we, or the program, are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// All groups of the user, as initgroups(3) has them.
    pub(crate) groups: Vec<Gid>,
    home: OsString,
    shell: OsString,
}

/// The users that websockify and the program run as. None: no change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Users {
    ours: Option<User>,
    /// The program's user, if it is to be another one than ours.
    program: Option<User>,
}

impl Users {
    /// Looks up the users that are to be changed to.
    ///
    /// # Errors
    ///
    /// There is no such user or group, it is root, or we are not root.
    pub(crate) fn to_become(spec: &UsersSpec) -> Result<Self> {
        [&spec.ours, &spec.program].into_iter().flatten().try_for_each(ensure_root)?;
        Self::look_up(spec)
    }

    /// Looks up the users after a hand-over, where the old binary has changed to ours already (O2).
    ///
    /// # Errors
    ///
    /// As [`to_become`](Self::to_become); but we have to be root only where the program changes its user by itself.
    pub(crate) fn to_remain(spec: &UsersSpec) -> Result<Self> {
        let changing = spec.program.iter().filter(|_| spec.ours.is_none());
        changing.into_iter().try_for_each(ensure_root)?;
        Self::look_up(spec)
    }

    fn look_up(spec: &UsersSpec) -> Result<Self> {
        let ours = spec.ours.as_ref().map(User::look_up).transpose()?;
        let program = spec.program.as_ref().map(User::look_up).transpose()?;
        let program = program.filter(|program| ours.as_ref() != Some(program));
        if let Some((ours, program)) = ours.as_ref().zip(program.as_ref())
            && ours.uid == program.uid
        {
            bail!(one_user(&ours.name).0);
        }
        Ok(Self { ours, program })
    }

    /// The user that we are to run as.
    pub(crate) fn ours(&self) -> Option<&User> {
        self.ours.as_ref()
    }

    /// The user that the program is to run as.
    pub(crate) fn of_program(&self) -> Option<&User> {
        self.program.as_ref().or(self.ours())
    }

    /// The user that the program has to change to by itself, where we stay root.
    pub(crate) fn program_changes_to(&self) -> Option<&User> {
        self.program.as_ref().filter(|_| self.ours.is_none())
    }

    /// The program's user where we change to another user, and so cannot start the program without a launcher.
    pub(crate) fn apart(&self) -> Option<&User> {
        self.program.as_ref().filter(|_| self.ours.is_some())
    }
}

impl User {
    pub(crate) fn look_up(spec: &UserSpec) -> Result<Self> {
        let UserSpec { user, group, .. } = spec;
        let cannot = || cannot_run_as(spec);
        let group = group.as_deref().map(group_of).transpose().with_context(cannot)?;
        let found = match nix::unistd::User::from_name(user)? {
            Some(found) => Some(found),
            None => match user.parse() {
                Ok(uid) => nix::unistd::User::from_uid(Uid::from_raw(uid))?,
                Err(_) => None,
            },
        };
        let user = match (found, user.parse(), group) {
            (Some(found), ..) => Self::found(found, group)?,
            (None, Ok(uid), Some(gid)) => Self::nameless(Uid::from_raw(uid), gid),
            (None, Ok(_), None) => bail!(
                "{}: no user has this number, so a group must be given, as in {user}:{user}",
                cannot()
            ),
            (None, Err(_), _) => bail!("{}: there is no such user", cannot()),
        };
        ensure!(!user.uid.is_root(), "{}: it would keep every right", cannot());
        // What setresuid(2) takes for "unchanged".
        ensure!(
            user.uid.as_raw() != u32::MAX && user.gid.as_raw() != u32::MAX,
            "{}: {} is no number of a user or a group",
            cannot(),
            u32::MAX
        );
        Ok(user)
    }

    fn found(found: nix::unistd::User, group: Option<Gid>) -> Result<Self> {
        let gid = group.unwrap_or(found.gid);
        let groups = getgrouplist(&CString::new(&*found.name)?, gid)?;
        let (home, shell) = (found.dir.into_os_string(), found.shell.into_os_string());
        Ok(Self { name: found.name, uid: found.uid, gid, groups, home, shell })
    }

    /// A user that the password file does not have, as in containers.
    fn nameless(uid: Uid, gid: Gid) -> Self {
        let (home, shell) = ("/".into(), "/bin/sh".into());
        Self { name: uid.to_string(), uid, gid, groups: vec![gid], home, shell }
    }

    /// The variables of the environment that depend on the user (login(1)).
    pub(crate) fn environment(&self) -> [(&'static str, OsString); 4] {
        let name = OsString::from(&self.name);
        [
            ("HOME", self.home.clone()),
            ("USER", name.clone()),
            ("LOGNAME", name),
            ("SHELL", self.shell.clone()),
        ]
    }
}

fn ensure_root(spec: &UserSpec) -> Result<()> {
    ensure!(geteuid().is_root(), "{}: only root can change user", cannot_run_as(spec));
    Ok(())
}

fn cannot_run_as(UserSpec { option, user, .. }: &UserSpec) -> String {
    format!("cannot run as user {user} ({option})")
}

fn group_of(typed: &str) -> Result<Gid> {
    match (Group::from_name(typed)?, typed.parse()) {
        (Some(found), _) => Ok(found.gid),
        (None, Ok(gid)) => Ok(Gid::from_raw(gid)),
        (None, Err(_)) => bail!("there is no group {typed}"),
    }
}
