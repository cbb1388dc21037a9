//! Users of this machine as the password and group files have them: who somebody is, and what he finds in his
//! environment. Must not know what is done with his rights.

use std::ffi::{CString, OsString};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Gid, Group, Uid, geteuid, getgrouplist};

use crate::config::{UserSpec, UsersSpec, one_user};

/// Somebody to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// All of his groups, as initgroups(3) has them.
    pub(crate) groups: Vec<Gid>,
    home: OsString,
    shell: OsString,
}

/// Who runs what. Where nobody stands, it is whoever has started us.
#[derive(Debug, Clone, Default)]
pub(crate) struct Users {
    ours: Option<User>,
    /// Never the same as ours.
    program: Option<User>,
}

impl Users {
    /// Those whom we are to become.
    ///
    /// # Errors
    ///
    /// There is no such user or group, it is root, or we are not root.
    pub(crate) fn to_become(spec: &UsersSpec) -> Result<Self> {
        [&spec.ours, &spec.program].into_iter().flatten().try_for_each(ensure_root)?;
        Self::look_up(spec)
    }

    /// Those of whom we have become ours before (O2).
    ///
    /// # Errors
    ///
    /// As above; but we have to be root only for a program that is to change by itself.
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

    /// Who we are to be.
    pub(crate) fn ours(&self) -> Option<&User> {
        self.ours.as_ref()
    }

    /// Who the program is to be.
    pub(crate) fn of_program(&self) -> Option<&User> {
        self.program.as_ref().or(self.ours())
    }

    /// Whom the program has to become by itself, as we go on being root.
    pub(crate) fn program_changes_to(&self) -> Option<&User> {
        self.program.as_ref().filter(|_| self.ours.is_none())
    }

    /// Who the program is to be where we, being somebody else, cannot make it so any more.
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

    /// As containers have them.
    fn nameless(uid: Uid, gid: Gid) -> Self {
        let (home, shell) = ("/".into(), "/bin/sh".into());
        Self { name: uid.to_string(), uid, gid, groups: vec![gid], home, shell }
    }

    /// What differs in his environment from that of others (login(1)).
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
