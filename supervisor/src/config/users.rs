//! The users that websockify and the program are to run as, as the command line names them. Does not look whether there
//! are such users.

use crate::cli::{Args, RebindEngine};
use crate::usage::{UsageError, invalid};

/// A user, and perhaps a group in place of the user's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserSpec {
    pub(crate) option: &'static str,
    /// A name or a number.
    pub(crate) user: String,
    pub(crate) group: Option<String>,
}

/// Which user runs what; where no user is named, it is the one who has started us.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct UsersSpec {
    /// The user of websockify, and of the program unless `program` names another.
    pub(crate) ours: Option<UserSpec>,
    /// The program's user, if it is another one.
    pub(crate) program: Option<UserSpec>,
}

/// What the command line says of them.
pub(super) fn spec(args: &Args) -> Result<UsersSpec, UsageError> {
    let read = |option, typed: &Option<String>| {
        typed.as_deref().map(|typed| user(option, typed)).transpose()
    };
    let ours = read("--user", &args.user)?;
    let program = read("--program-user", &args.program_user)?;
    let is_same = ours.as_ref().zip(program.as_ref()).is_some_and(|(ours, program)| {
        (&ours.user, &ours.group) == (&program.user, &program.group)
    });
    let program = program.filter(|_| !is_same);
    if let Some((ours, program)) = ours.as_ref().zip(program.as_ref())
        && ours.user == program.user
    {
        return Err(one_user(&ours.user));
    }
    if ours.is_some() && program.is_some() && args.rebind_engine == Some(RebindEngine::Seccomp) {
        return Err(UsageError(
            "options '--user' and '--program-user' together exclude '--rebind-engine=seccomp': one user's process \
             cannot answer another's calls"
                .into(),
        ));
    }
    Ok(UsersSpec { ours, program })
}

/// The same user with two groups is refused: a process of our user can do anything to ours, whatever its group is.
pub(crate) fn one_user(user: &str) -> UsageError {
    UsageError(format!(
        "options '--user' and '--program-user' name one user, {user}, with two groups: the group must be the same, or the \
         user another"
    ))
}

fn user(option: &'static str, typed: &str) -> Result<UserSpec, UsageError> {
    let (user, group) = match typed.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (typed, None),
    };
    let is_name = |name: &str| !name.is_empty() && !name.contains([':', '\0']);
    if !is_name(user) || !group.is_none_or(is_name) {
        return Err(invalid(option, typed, "a user, or USER:GROUP"));
    }
    Ok(UserSpec { option, user: user.to_owned(), group: group.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(line: &str) -> Result<UsersSpec, String> {
        let words = ["websockify"].into_iter().chain(line.split(' '));
        let args = Args::parse_from_os(words.map(std::ffi::OsString::from)).ok().expect(line);
        spec(&args).map_err(|UsageError(line)| line)
    }

    #[test]
    fn w16_a_user_is_a_name_or_a_number_with_a_group_or_without() {
        for (typed, user, group) in [
            ("www-data", "www-data", None),
            ("www-data:adm", "www-data", Some("adm")),
            ("1000:1001", "1000", Some("1001")),
        ] {
            let UserSpec { user: read, group: of, .. } =
                super::user("--user", typed).expect("a user");
            assert_eq!((&*read, of.as_deref()), (user, group), "{typed}");
        }
        for typed in ["", ":", "a:", ":b", "a:b:c"] {
            let UsageError(line) = user("--program-user", typed).expect_err(typed);
            assert!(line.contains(&format!("'{typed}' for '--program-user'")), "{line}");
        }
    }

    #[test]
    fn w16_the_same_user_twice_is_one() {
        let both = users("--user=a --program-user=a 80 -- true").expect("good");
        assert!(both.ours.is_some() && both.program.is_none());
        let both = users("--user=a --program-user=b 80 -- true").expect("good");
        assert!(both.ours.is_some() && both.program.is_some());
        let error = users("--user=a --program-user=a:b 80 -- true").expect_err("no protection");
        assert!(error.contains("name one user, a, with two groups"), "{error}");
        let seccomp = "--program-user=b --rebind-engine=seccomp 80 -- true";
        assert!(users(seccomp).is_ok());
        let error = users(&format!("--user=a {seccomp}")).expect_err("excluded");
        assert!(error.contains("exclude '--rebind-engine=seccomp'"), "{error}");
    }
}
