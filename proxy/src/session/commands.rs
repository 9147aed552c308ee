//! Redis commands judged: by the session's roles, by its keys, by the database and the user they ask for.
//!
//! The roles' rules are compiled to a bit for each command of the built-in table, once for equal rules, so that the
//! common question is one bit. Only a command that the table does not have is judged by its name.

use std::rc::Rc;
use std::sync::LazyLock;

use ringgate_audit::event;
use ringgate_policy::{AuthMethod, CommandFacts, CommandRules, KeyRules, Permit};
use ringgate_protocol::redis::{self, Categories, CommandId, builtin};
use ringgate_protocol::{Operation, RefusalKind, Verb};

use super::authorize;
use crate::settings::ArgumentDetail;
use crate::worker::{Control, Core};

/// Users that one session may be on its way to be at once: each is an AUTH without an answer yet.
const PENDING_MAX: usize = 8;

/// A set of commands of the built-in table.
pub type CommandBits = Rc<[u64]>;

/// A command refused: what the client is told, and why.
pub struct Denied {
    /// For the client, in the words of the server.
    pub message: String,
    /// For the audit.
    pub detail: String,
    /// Which refusal it is. `NotAuthorized`: the client may not be whom it asks to be.
    pub kind: RefusalKind,
}

/// What one database user may do in the session.
#[derive(Clone)]
struct Judge {
    rules: CommandRules,
    permitted: CommandBits,
    keys: Option<KeyRules>,
    enforces_names: bool,
}

/// What the commands of a session are judged by.
pub struct Commands {
    /// Who the session is.
    now: Standing,
    /// Who it was when it began, and is again after RESET; only where the client brings the credential
    /// (`auth: passthrough`).
    first: Option<Standing>,
    /// What is recorded of arguments.
    pub detail: ArgumentDetail,
    pending: Vec<Pending>,
    /// Modes that are on record, a bit each.
    modes: u8,
}

/// A database user, and what it may do.
#[derive(Clone)]
struct Standing {
    user: Rc<str>,
    judge: Judge,
    /// The server takes the session for this user. Before the client's own AUTH it takes it for `default`.
    is_signed_in: bool,
}

/// A user that the session becomes if the server agrees. Until that is known a command has to be permitted to both.
struct Pending {
    ei: u32,
    standing: Standing,
}

impl Standing {
    #[inline]
    fn allows(&self, command: &redis::Command<'_>) -> Result<(), Denied> {
        if !self.is_signed_in && !matches!(command.name(), "AUTH" | "HELLO" | "QUIT" | "RESET") {
            return Err(Denied {
                message: "Authentication required.".to_owned(),
                detail: format!("the client has not signed in as {:?} yet", self.user),
                kind: RefusalKind::NotSignedIn,
            });
        }
        self.judge.allows(command)
    }
}

impl Judge {
    fn new(core: &Core, permit: &Permit) -> Judge {
        let rules = permit.command_rules().clone();
        let mut known = core.permitted.borrow_mut();
        if known.len() >= RULES_MAX {
            known.clear();
        }
        let permitted = known.entry(rules.clone()).or_insert_with(|| compile(&rules)).clone();
        let enforces_names = permit.checks_names();
        Judge { rules, permitted, keys: permit.key_rules().cloned(), enforces_names }
    }

    fn allows(&self, command: &redis::Command<'_>) -> Result<(), Denied> {
        let allowed = command.id().map_or_else(
            || facts(command.name(), command.categories(), command.is_known(), command.right(), |f| self.asks(f)),
            |id| has(&self.permitted, id),
        );
        if !allowed {
            return Err(self.why(command));
        }
        match &self.keys {
            None => Ok(()),
            Some(keys) => allows_keys(keys, command),
        }
    }

    fn asks(&self, facts: &CommandFacts<'_>) -> bool {
        self.rules.judge(facts).allowed
    }

    #[cold]
    fn why(&self, command: &redis::Command<'_>) -> Denied {
        let (categories, known, right) = (command.categories(), command.is_known(), command.right());
        let detail = facts(command.name(), categories, known, right, |f| self.rules.judge(f).clause.to_string());
        let name = command.name().to_ascii_lowercase();
        Denied {
            message: format!("this user has no permissions to run the '{name}' command"),
            detail,
            kind: RefusalKind::Denied,
        }
    }
}

/// Sets of rules that a worker keeps compiled; beyond that it begins anew.
const RULES_MAX: usize = 256;

fn compile(rules: &CommandRules) -> CommandBits {
    let mut bits = vec![0u64; builtin().len().div_ceil(64)];
    for (index, known) in builtin().iter().enumerate() {
        if facts(known.name, known.categories, true, known.right, |f| rules.judge(f).allowed) {
            bits[index / 64] |= 1 << (index % 64);
        }
    }
    bits.into()
}

#[inline]
fn has(bits: &[u64], CommandId(id): CommandId) -> bool {
    bits.get(usize::from(id / 64)).is_some_and(|word| word & (1 << (id % 64)) != 0)
}

/// The command as policy asks for it, without allocating.
fn facts<T>(
    name: &str,
    categories: Categories,
    known: bool,
    right: Option<&str>,
    then: impl FnOnce(&CommandFacts<'_>) -> T,
) -> T {
    let mut classes = [""; 32];
    let mut count = 0;
    for (class, word) in classes.iter_mut().zip(categories.words()) {
        *class = word;
        count += 1;
    }
    let (name, sub) = name.split_once('|').map_or((name, None), |(name, sub)| (name, Some(sub)));
    then(&CommandFacts { name, sub, classes: &classes[..count], known, right })
}

fn allows_keys(rules: &KeyRules, command: &redis::Command<'_>) -> Result<(), Denied> {
    let denied = |detail: String| Denied {
        message: "this user has no permissions to access one of the keys used as arguments".to_owned(),
        detail,
        kind: RefusalKind::Denied,
    };
    for key in command.keys() {
        match key {
            Ok(key) if rules.allows(key.bytes) => {}
            Ok(key) => {
                let key = String::from_utf8_lossy(&key.bytes[..key.bytes.len().min(256)]);
                return Err(denied(format!("key {key:?} is not in db_keys of the roles of this session")));
            }
            Err(_) => return Err(denied("the keys of the command cannot be told, and db_keys restricts them".into())),
        }
    }
    Ok(())
}

impl Commands {
    /// The rules of a session that `permit` has let in.
    pub fn new(core: &Core, permit: &Permit, detail: ArgumentDetail) -> Box<Commands> {
        let is_passthrough = permit.database().auth.method == AuthMethod::Passthrough;
        let now = Standing {
            user: permit.db_user().into(),
            judge: Judge::new(core, permit),
            is_signed_in: !is_passthrough || permit.db_user() == "default",
        };
        Box::new(Commands { first: is_passthrough.then(|| now.clone()), now, detail, pending: Vec::new(), modes: 0 })
    }

    /// Whether the command may be forwarded. Allocates nothing when it may, unless it asks for another user.
    #[inline]
    pub fn allows(
        &mut self,
        core: &Core,
        control: &Control,
        operation: &Operation<'_>,
        command: &redis::Command<'_>,
        ei: u32,
    ) -> Result<(), Denied> {
        self.now.allows(command)?;
        for pending in &self.pending {
            pending.standing.allows(command)?;
        }
        let is_closer = !operation.database.is_empty() || command.id().is_some_and(|id| has(&CLOSER, id));
        if is_closer && self.enforces_names() {
            self.allows_databases(core, control, operation, command)?;
        }
        if operation.verb == Verb::Authenticate {
            return self.may_become(core, control, operation.user, ei);
        }
        match &self.first {
            Some(first) if command.name() == "RESET" => {
                let standing = first.clone();
                self.pend(Pending { ei, standing })
            }
            _ => Ok(()),
        }
    }

    fn enforces_names(&self) -> bool {
        self.standings().any(|standing| standing.judge.enforces_names)
    }

    /// Whom the server may take the session for when it comes to the next command.
    fn standings(&self) -> impl Iterator<Item = &Standing> {
        std::iter::once(&self.now).chain(self.pending.iter().map(|pending| &pending.standing))
    }

    /// Every database that the command names has to be one of the roles' `db_names`.
    #[cold]
    fn allows_databases(
        &self,
        core: &Core,
        control: &Control,
        operation: &Operation<'_>,
        command: &redis::Command<'_>,
    ) -> Result<(), Denied> {
        let snapshot = core.newest_policy();
        let mut arguments = command.raw();
        let named: Vec<&[u8]> = match command.name() {
            "MOVE" => arguments.nth(1).into_iter().collect(),
            "SWAPDB" => arguments.collect(),
            "COPY" => {
                let mut after = arguments.skip_while(|word| !word.eq_ignore_ascii_case(b"DB"));
                after.nth(1).into_iter().collect()
            }
            _ if operation.database.is_empty() => Vec::new(),
            _ => vec![operation.database],
        };
        for name in named {
            let name = String::from_utf8_lossy(name);
            for standing in self.standings() {
                authorize::permit_for(&control.about, &snapshot, &standing.user, &name).map(drop).map_err(|why| {
                    Denied {
                        message: format!("this user has no permissions to access database {name}"),
                        detail: why,
                        kind: RefusalKind::Denied,
                    }
                })?;
            }
        }
        Ok(())
    }

    /// The client says who it is. Only `auth: passthrough` lets it be somebody else than its certificate says.
    #[cold]
    fn may_become(&mut self, core: &Core, control: &Control, user: &[u8], ei: u32) -> Result<(), Denied> {
        let denied = |detail: String| Denied {
            message: "invalid username-password pair or user is disabled".to_owned(),
            detail,
            kind: RefusalKind::NotAuthorized,
        };
        let user = std::str::from_utf8(user).map_err(|_| denied("the user's name is not UTF-8".into()))?;
        if self.first.is_none() {
            return match &*self.now.user {
                own if own == user => Ok(()),
                own => Err(denied(format!("the certificate is for database user {own:?}, not {user:?}"))),
            };
        }
        let snapshot = core.newest_policy();
        let permit = authorize::permit_for(&control.about, &snapshot, user, &control.about.db_name).map_err(denied)?;
        let standing = Standing { user: user.into(), judge: Judge::new(core, &permit), is_signed_in: true };
        self.pend(Pending { ei, standing })
    }

    fn pend(&mut self, pending: Pending) -> Result<(), Denied> {
        if self.pending.len() >= PENDING_MAX {
            return Err(Denied {
                message: "too many attempts to sign in without an answer".to_owned(),
                detail: format!("more than {PENDING_MAX} changes of the user are unanswered"),
                kind: RefusalKind::Denied,
            });
        }
        self.pending.push(pending);
        Ok(())
    }

    /// The record of an allowed AUTH or RESET could not be made: it is not forwarded.
    pub fn forget(&mut self, ei: u32) {
        self.pending.retain(|pending| pending.ei != ei);
    }

    /// Whether the outcome of the statement decides who the session is.
    pub fn awaits(&self, ei: u32) -> bool {
        self.pending.last().is_some_and(|pending| pending.ei == ei)
    }

    /// An outcome is known of `count` statements from `first` on. Gives the user that the session has become.
    #[inline]
    pub fn settled(&mut self, first: u32, count: u32, success: bool) -> Option<&str> {
        if self.pending.is_empty() { None } else { self.settle(first, count, success) }
    }

    #[cold]
    fn settle(&mut self, first: u32, count: u32, success: bool) -> Option<&str> {
        let mut became = false;
        while let Some(at) = self.pending.iter().position(|p| p.ei.checked_sub(first).is_some_and(|n| n < count)) {
            let pending = self.pending.remove(at);
            if success {
                (self.now, became) = (pending.standing, true);
            }
        }
        became.then_some(&*self.now.user)
    }

    /// The mode that the command puts the session into for the first time, as the audit calls it.
    pub fn enters(&mut self, command: &redis::Command<'_>) -> Option<&'static str> {
        if !command.id().is_some_and(|id| has(&CLOSER, id)) {
            return None;
        }
        let (bit, mode) = match command.name() {
            "MONITOR" => (1, "monitor"),
            "SUBSCRIBE" => (2, "subscribe"),
            "PSUBSCRIBE" => (4, "psubscribe"),
            "SSUBSCRIBE" => (8, "ssubscribe"),
            "SYNC" | "PSYNC" => (16, "replication"),
            _ => return None,
        };
        let is_first = self.modes & bit == 0;
        self.modes |= bit;
        is_first.then_some(mode)
    }
}

/// Commands that are looked at more closely than by their bit: those that change the mode of the session, and those
/// that reach for another database.
static CLOSER: LazyLock<Vec<u64>> = LazyLock::new(|| {
    let names =
        ["MONITOR", "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "SYNC", "PSYNC", "MOVE", "SWAPDB", "COPY", "SELECT"];
    let mut bits = vec![0u64; builtin().len().div_ceil(64)];
    for (index, _) in builtin().iter().enumerate().filter(|(_, known)| names.contains(&known.name)) {
        bits[index / 64] |= 1 << (index % 64);
    }
    bits
});

/// Whether `db_audit.statements: ddl_dml` keeps the command: whatever may change something, and what is not certain.
pub fn may_change(command: &redis::Command<'_>) -> bool {
    static CHANGING: LazyLock<u32> = LazyLock::new(|| {
        let words = [&b"write"[..], b"admin", b"dangerous", b"scripting"];
        words.iter().filter_map(|word| Categories::named(word)).fold(0, |bits, one| bits | one.bits())
    });
    !command.is_known() || command.categories().bits() & *CHANGING != 0
}

/// The longest key or value recorded; longer ones leave their length.
const VALUE_BYTES_MAX: usize = 8 * 1024;

fn text(bytes: &[u8]) -> event::Parameter<'_> {
    if bytes.len() > VALUE_BYTES_MAX {
        event::Parameter::Cut(bytes.len() as u64)
    } else {
        event::Parameter::Text(bytes)
    }
}

/// The keys of a command for its record.
pub struct KeyList<'a>(pub redis::Command<'a>);

impl event::Parameters for KeyList<'_> {
    fn walk(&self, each: &mut dyn FnMut(event::Parameter<'_>)) {
        for key in self.0.keys() {
            each(key.map_or(event::Parameter::Null, |key| text(key.bytes)));
        }
    }
}

/// The arguments of a command for its record, secrets masked.
pub struct ValueList<'a>(pub redis::Command<'a>);

impl event::Parameters for ValueList<'_> {
    fn walk(&self, each: &mut dyn FnMut(event::Parameter<'_>)) {
        if !self.0.is_known() {
            // Any of them may be a secret: their lengths say enough.
            return self.0.raw().for_each(|value| each(event::Parameter::Cut(value.len() as u64)));
        }
        self.0.values().for_each(|value| each(text(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> CommandId {
        let at = builtin().iter().position(|known| known.name == name).expect("a command of the table");
        CommandId(u16::try_from(at).expect("a small table"))
    }

    #[test]
    fn rules_that_say_nothing_permit_what_needs_no_right() {
        let bits = compile(&CommandRules::default());
        for (name, permitted) in
            [("GET", true), ("CONFIG|SET", true), ("FLUSHALL", true), ("MONITOR", false), ("MIGRATE", false)]
        {
            assert_eq!(has(&bits, id(name)), permitted, "{name}");
        }
        assert!(!has(&bits, CommandId(u16::MAX)));
    }

    #[test]
    fn a_command_has_all_its_categories_in_the_question_to_policy() {
        let get = &builtin()[usize::from(id("GET").0)];
        facts(get.name, get.categories, true, get.right, |facts| {
            assert_eq!((facts.name, facts.sub), ("GET", None));
            assert!(facts.classes.contains(&"read") && facts.classes.contains(&"string"), "{:?}", facts.classes);
        });
        facts("CONFIG|SET", Categories::NONE, true, None, |facts| {
            assert_eq!((facts.name, facts.sub), ("CONFIG", Some("SET")));
            assert!(facts.classes.is_empty());
        });
    }

    #[test]
    fn what_changes_the_mode_or_the_database_is_looked_at_closer() {
        for (name, closer) in [("SUBSCRIBE", true), ("SELECT", true), ("COPY", true), ("GET", false), ("SET", false)] {
            assert_eq!(has(&CLOSER, id(name)), closer, "{name}");
        }
    }
}
