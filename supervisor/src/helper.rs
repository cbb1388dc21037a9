//! Helpers: programs that tell us where tokens lead or who is let in, a line for each question and a line for each
//! answer (U9). A helper runs as long as we do. If it has ended, hangs, or says what cannot be understood, the
//! questions that it has fail, and it is ended and started again, after a longer delay each time.
//!
//! - `child` is its process: how it is started, and ended with all of its process group,
//! - `lines` knows what stands in a line, and does no I/O,
//! - `python` is the helper that asks a class of the user's own (U8).

mod child;
#[cfg(test)]
mod fuzzing;
mod lines;
#[cfg(test)]
#[path = "../../bridge/src/fuzzing/numbers.rs"]
mod numbers;
mod python;

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::pending;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use bridge::{Question, QuestionReceiver, QuestionSender, Reply, Verdict, error_text};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use crate::config::HelperSpec;
use crate::exit::{ExitStatus, Failure};
use child::Child;
pub(crate) use child::Surroundings;
use lines::{Lines, Object};

/// How many questions a helper has at a time for which a client waits. Further questions wait.
const AT_ONCE: usize = 64;

/// How long a helper may say nothing while it has a question. It is a little longer than a client waits, and than
/// `plugin.py` lets a call last, so that a single call that hangs does not have the helper ended.
const SILENCE: Duration = Duration::from_secs(12);

/// How long after its end a helper is started again: so much at first, twice as much each time, and at most a time that
/// is less than a client waits. So a client that can make the helper fail (by a token, say) keeps it from other clients
/// for a short time only.
const DELAY: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(5);

/// A helper that has run for so long gets the first delay again.
const WELL: Duration = Duration::from_secs(60);

/// A helper that is not started yet.
#[derive(Debug)]
pub(crate) struct Helper {
    spec: HelperSpec,
    questions: QuestionReceiver,
}

/// A helper that runs.
struct Running {
    helper: Helper,
    surroundings: Surroundings,
    child: Child,
}

/// All helpers: the one that knows tokens, and the one that knows who is let in.
pub(crate) struct Helpers(Option<Stage>, Option<Stage>);

/// How far a helper is.
enum Stage {
    /// It is to be started, when everything else goes on already.
    Due(Helper, Surroundings),
    Running(Running),
}

/// The questions that a helper has not answered yet.
#[derive(Default)]
struct Pending {
    waiting: HashMap<u64, Waiting>,
    last_id: u64,
}

/// Where an answer is awaited.
enum Waiting {
    Target(Reply<Option<String>>),
    Verdict(Reply<Verdict>),
}

impl Helper {
    /// A helper that is not yet started, and the end where questions are put to it.
    pub(crate) fn new(spec: HelperSpec) -> (Self, QuestionSender) {
        let (asked, questions) = QuestionSender::channel();
        (Self { spec, questions }, asked)
    }

    /// The files of the helper, as far as they are known.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.spec.files()
    }

    /// What the log calls it.
    pub(crate) fn name(&self) -> String {
        name(&self.spec)
    }

    async fn start(self, surroundings: Surroundings) -> Result<Running, Failure> {
        let child = begin(&self.spec, &surroundings).await?;
        Ok(Running { helper: self, surroundings, child })
    }

    /// Starts it, and tries again until that succeeds.
    async fn start_again(self, surroundings: Surroundings) -> Running {
        let child = match begin(&self.spec, &surroundings).await {
            Ok(child) => child,
            Err(failure) => {
                warn!("{}", failure.reason);
                begin_again(&self.spec, &surroundings, &mut DELAY.clone()).await
            }
        };
        Running { helper: self, surroundings, child }
    }
}

impl Helpers {
    /// Starts them for the first time. Must be awaited in a runtime, on the main thread.
    pub(crate) async fn start(
        tokens: Option<Helper>,
        auth: Option<Helper>,
        surroundings: &Surroundings,
    ) -> Result<Self, Failure> {
        let start = async |helper: Option<Helper>| match helper {
            Some(helper) => helper.start(surroundings.clone()).await.map(Stage::Running).map(Some),
            None => Ok(None),
        };
        Ok(Self(start(tokens).await?, start(auth).await?))
    }

    /// After a hand-over (O2), for which the old binary has ended its helpers: they are started later, and only clients
    /// that have a question wait for them.
    pub(crate) fn resume(
        tokens: Option<Helper>,
        auth: Option<Helper>,
        surroundings: &Surroundings,
    ) -> Self {
        let due = |helper| Stage::Due(helper, surroundings.clone());
        Self(tokens.map(due), auth.map(due))
    }

    /// Puts all questions to the helpers. When this is dropped, they are ended. Must be awaited on the main thread, as
    /// a helper dies with the thread that has started it.
    pub(crate) async fn serve(self) -> Infallible {
        let serve = async |stage: Option<Stage>| -> Infallible {
            let running = match stage {
                Some(Stage::Running(running)) => running,
                Some(Stage::Due(helper, surroundings)) => helper.start_again(surroundings).await,
                None => pending().await,
            };
            running.serve().await
        };
        let (never, _) = tokio::join!(serve(self.0), serve(self.1));
        never
    }
}

fn name(spec: &HelperSpec) -> String {
    match spec {
        HelperSpec::Program(command) => command.first().map(|name| child::file_name(name)),
        HelperSpec::Class(class) => Some(class.name.clone()),
    }
    .unwrap_or_default()
}

/// Starts it, and waits until it can be asked.
async fn begin(spec: &HelperSpec, surroundings: &Surroundings) -> Result<Child, Failure> {
    let name = name(spec);
    match spec {
        HelperSpec::Program(command) => Child::start(command, &name, surroundings),
        HelperSpec::Class(class) => {
            let mut child = Child::start(&python::command(), &name, surroundings)?;
            python::load(&mut child, class).await.map_err(|why| Failure {
                status: ExitStatus::FAILURE,
                reason: format!("cannot start plugin {name}: {why}"),
            })?;
            Ok(child)
        }
    }
}

impl Running {
    /// Puts all questions to it, and starts it again when it fails.
    async fn serve(mut self) -> Infallible {
        let mut delay = DELAY;
        loop {
            let began = Instant::now();
            let why = ask(&mut self.helper.questions, &mut self.child).await;
            warn!("{} has failed and is started again: {why}", self.child.name);
            if began.elapsed() >= WELL {
                delay = DELAY;
            }
            self.child.kill().await;
            self.child = begin_again(&self.helper.spec, &self.surroundings, &mut delay).await;
        }
    }
}

/// Starts a helper that has failed, after a longer delay each time.
async fn begin_again(
    spec: &HelperSpec,
    surroundings: &Surroundings,
    delay: &mut Duration,
) -> Child {
    loop {
        sleep(next_delay(delay)).await;
        match begin(spec, surroundings).await {
            Ok(child) => return child,
            Err(failure) => warn!("{}", failure.reason),
        }
    }
}

/// The delay before this start; the one before the next start is longer.
fn next_delay(delay: &mut Duration) -> Duration {
    let longer = (*delay * 2).min(DELAY_MAX);
    std::mem::replace(delay, longer)
}

/// Puts questions to this child until it can be used no more; the result is the reason. The questions that it has not
/// answered fail then.
async fn ask(questions: &mut QuestionReceiver, child: &mut Child) -> String {
    let mut pending = Pending::default();
    let mut lines = Lines::default();
    let (mut asking, mut asked) = (Vec::new(), 0);
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            // What the helper has said is read before its end is noticed.
            biased;
            read = child::read(&mut child.answers, &mut lines) => match read
                .and_then(|()| pending.take_all(&mut lines))
            {
                Ok(false) => {}
                Ok(true) => heard = Instant::now(),
                Err(why) => return why,
            },
            () = child::ended(&mut child.end) => return "it has ended".into(),
            ready = child.questions.writable(), if asked < asking.len() => {
                match ready.and_then(|()| child.questions.try_write(&asking[asked..])) {
                    Ok(written) => asked += written,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return format!("it takes no question: {}", error_text(&error)),
                }
            }
            Some(question) = questions.next(), if asked == asking.len() && pending.has_room() => {
                if pending.waiting.is_empty() {
                    heard = Instant::now();
                }
                (asking, asked) = (pending.put(question).into_bytes(), 0);
            }
            () = sleep_until(heard + SILENCE), if !pending.waiting.is_empty() => {
                return format!("no answer within {} s", SILENCE.as_secs());
            }
        }
    }
}

impl Pending {
    /// Whether the helper may get one more question. Questions that nobody waits for any more do not count, but there
    /// may be only as many again of them; then the helper gets no more for now, but is not ended. So clients that come
    /// and go neither take the places of others, nor have a helper ended that answers.
    fn has_room(&self) -> bool {
        let awaited = || self.waiting.values().filter(|waiting| waiting.is_awaited()).count();
        let asked = self.waiting.len();
        asked < AT_ONCE || (asked < 2 * AT_ONCE && awaited() < AT_ONCE)
    }

    /// Notes a question, and gives the line that asks it.
    fn put(&mut self, question: Question) -> String {
        self.last_id += 1;
        let (line, waiting) = match question {
            Question::Lookup { token, answer } => {
                (lines::lookup(self.last_id, &token), Waiting::Target(answer))
            }
            Question::Authenticate { shown, answer } => {
                (lines::authenticate(self.last_id, &shown), Waiting::Verdict(answer))
            }
        };
        self.waiting.insert(self.last_id, waiting);
        line
    }

    /// Passes on the answers; says whether there was one.
    fn take_all(&mut self, lines: &mut Lines) -> Result<bool, String> {
        let mut has_answered = false;
        while let Some(line) = lines.next()? {
            let (id, object) = lines::answer(&line)?;
            let waiting = self.waiting.remove(&id);
            waiting.ok_or_else(|| format!("nobody has asked it what {id} answers"))?.take(&object);
            has_answered = true;
        }
        Ok(has_answered)
    }
}

impl Waiting {
    fn is_awaited(&self) -> bool {
        match self {
            Self::Target(answer) => !answer.is_closed(),
            Self::Verdict(answer) => !answer.is_closed(),
        }
    }

    /// Passes an answer on. The client may have gone.
    fn take(self, object: &Object) {
        match self {
            Self::Target(answer) => drop(answer.send(lines::target(object))),
            Self::Verdict(answer) => drop(answer.send(lines::verdict(object))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u8_a_helper_that_fails_is_started_again_later_each_time() {
        let mut delay = DELAY;
        let milliseconds: Vec<_> = (0..8).map(|_| next_delay(&mut delay).as_millis()).collect();
        assert_eq!(milliseconds, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    /// A question that nobody waits for takes no place from others, but only so many of them do not count.
    #[test]
    fn u9_a_question_that_is_given_up_makes_room_for_another() {
        let mut pending = Pending::default();
        let mut clients = Vec::new();
        let put = |pending: &mut Pending| {
            let (answer, client) = tokio::sync::oneshot::channel();
            pending.put(Question::Lookup { token: "a".into(), answer });
            client
        };
        for _ in 0..AT_ONCE {
            assert!(pending.has_room());
            clients.push(put(&mut pending));
        }
        assert!(!pending.has_room());
        clients.pop();
        assert!(pending.has_room());
        clients.push(put(&mut pending));
        assert!(!pending.has_room());
        let mut lines = Lines::default();
        lines.space().extend(b"{\"id\":1}\n{\"id\":1}\n");
        let twice = pending.take_all(&mut lines);
        assert_eq!(twice, Err("nobody has asked it what 1 answers".into()));
        assert_eq!(clients[0].try_recv(), Ok(Ok(None)));
        clients.clear();
        while pending.waiting.len() < 2 * AT_ONCE {
            assert!(pending.has_room(), "{}", pending.waiting.len());
            drop(put(&mut pending));
        }
        assert!(!pending.has_room());
    }
}
