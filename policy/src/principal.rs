//! Who asks, with roles made ready: the decision of access-model 5.5.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::command::CommandRules;
use crate::database::{Database, DatabaseProtocol};
use crate::decision::{Because, Decision, Denied, Effect, Request};
use crate::filter::Filter;
use crate::key::KeyRules;
use crate::options::{CreateDbUserMode, DeviceTrust, SessionMfa, SessionOptions};
use crate::permit::Permit;
use crate::principals::NameList;
use crate::role::ReadyRole;
use crate::snapshot::Snapshot;
use crate::template::Facts;

/// An identity with its roles ready to decide; made by [`Snapshot::principal`] and valid for that snapshot.
#[derive(Debug)]
pub struct Principal {
    user: String,
    /// Only where an expression may ask for them.
    traits: BTreeMap<String, Vec<String>>,
    /// Sorted by name, none twice, so that the order in the identity changes nothing, reasons included.
    roles: Vec<Arc<ReadyRole>>,
    /// Of each role what its allowed labels demand, in the order of `roles`.
    allowed_labels: Box<[Filter]>,
    /// Holds whatever any role denies.
    denied: DenyFilters,
    options: SessionOptions,
    mfa_always: bool,
    only: Option<BTreeSet<String>>,
    version: u64,
}

impl Principal {
    pub(crate) fn new(snapshot: &Snapshot, facts: Facts<'_>, mut roles: Vec<Arc<ReadyRole>>) -> Self {
        roles.sort_by(|one, other| one.name.cmp(&other.name));
        roles.dedup_by(|one, other| one.name == other.name);
        let needs_traits = roles.iter().any(|role| role.has_expression());
        let every_role = !roles.is_empty() && roles.iter().all(|role| role.options().require_session_mfa.is_demanded());
        Self {
            user: facts.user.to_owned(),
            traits: if needs_traits { facts.traits.clone() } else { BTreeMap::new() },
            options: SessionOptions::merge(snapshot.cluster(), roles.iter().map(|role| role.options())),
            mfa_always: every_role || snapshot.cluster().require_session_mfa.is_demanded(),
            only: None,
            version: snapshot.version(),
            allowed_labels: roles.iter().map(|role| role.gate.allowed_labels).collect(),
            denied: roles.iter().fold(DenyFilters::default(), |all, role| all.with(role)),
            roles,
        }
    }

    /// Limits the principal to the databases of a resource request (access-model 8.4).
    #[must_use]
    pub fn limited_to(mut self, databases: impl IntoIterator<Item = String>) -> Self {
        self.only = Some(databases.into_iter().collect());
        self
    }

    /// Whether `db ls` shows the database: its labels are allowed and not denied.
    pub fn can_see(&self, database: &Database) -> bool {
        self.may_reach(database)
            && !(self.denied.labels && self.roles.iter().any(|role| role.denies_labels(&database.labels, self.facts())))
            && self.reaching(database).next().is_some()
    }

    /// Database users allowed on the database, sorted, as the roles write them: names, `*`, `glob:…`, `regex:…`;
    /// names that a deny list matches are left out.
    pub fn allowed_users(&self, database: &Database) -> Vec<String> {
        self.words(database, |role| (&role.allow.users, &role.deny.users))
    }

    /// Database names allowed on the database, as [`Self::allowed_users`]. `*` where names are not checked.
    pub fn allowed_names(&self, database: &Database) -> Vec<String> {
        if !self.enforces_names(database.protocol) {
            return if self.can_see(database) { vec!["*".to_owned()] } else { Vec::new() };
        }
        self.words(database, |role| (&role.allow.names, &role.deny.names))
    }

    /// Longest certificate for the principal: the shortest of its roles, at most 30 h.
    pub fn max_session_ttl(&self) -> Duration {
        self.options.max_session_ttl
    }

    /// The combined options of all roles.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// The names of the principal's roles, sorted.
    pub fn role_names(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().map(|role| &*role.name)
    }

    /// The provisioning mode for the database: the highest of the roles whose labels match (access-model 4.3).
    pub fn create_db_user_mode(&self, database: &Database) -> CreateDbUserMode {
        let modes = self.reaching(database).filter_map(|role| role.options().create_db_user_mode);
        modes.max().unwrap_or(CreateDbUserMode::Off)
    }

    /// The database roles for provisioning: of the matching roles with provisioning on, minus the denied; sorted.
    pub fn db_roles(&self, database: &Database) -> Vec<String> {
        let denied: BTreeSet<&str> =
            self.roles.iter().flat_map(|role| &role.deny.db_roles).map(String::as_str).collect();
        if denied.contains("*") {
            return Vec::new();
        }
        let on = |role: &&ReadyRole| role.options().create_db_user_mode > Some(CreateDbUserMode::Off);
        let granted: BTreeSet<&str> =
            self.reaching(database).filter(on).flat_map(|role| &role.allow.db_roles).map(String::as_str).collect();
        // A trait may bring `*` in; it is no role's name.
        granted.difference(&denied).filter(|name| **name != "*").map(|name| (*name).to_owned()).collect()
    }

    /// Decides. Pure: the same principal and request give the same decision. Allocates nothing when it allows.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        match self.evaluate(request) {
            Ok(role) => Decision {
                effect: Effect::Allow,
                because: Because::Allowed { role: Arc::clone(&role.name), clause: Arc::clone(&role.clause) },
                version: self.version,
            },
            Err(because) => Decision { effect: Effect::Deny, because, version: self.version },
        }
    }

    /// Decides, and proves a yes. Errors: [`Denied`], whose text may be shown to the client.
    pub fn authorize(&self, request: &Request<'_>) -> Result<Permit, Denied> {
        if let Err(because) = self.evaluate(request) {
            return Err(Denied { because, database: request.database.name.clone(), version: self.version });
        }
        let asked = self.asked(request);
        let matching: Vec<&ReadyRole> =
            self.reaching(request.database).filter(|role| asked.is_in(&role.allow.users, &role.allow.names)).collect();
        let rules = matching.iter().map(|role| Arc::clone(&role.name)).collect();
        let commands = CommandRules::merge(
            matching.iter().map(|role| (&role.name, role.allowed_commands())),
            self.roles.iter().map(|role| (&role.name, role.denied_commands())),
        );
        let keys = KeyRules::merge(matching.iter().map(|role| role.keys()));
        Ok(Permit {
            database: Arc::clone(request.database),
            db_user: asked.user.to_owned(),
            db_name: asked.effective_name.to_owned(),
            options: self.options.clone(),
            version: self.version,
            rules,
            commands,
            keys,
            checks_names: asked.name.is_some(),
            mfa_verified: request.mfa_verified,
            device_trusted: request.device_trusted,
        })
    }

    /// Authorises the session of `permit` anew, as `db_user` and with `db_name`: for what a session may change in its
    /// course, `SELECT n` and `AUTH` of Redis, `COM_INIT_DB` and `COM_CHANGE_USER` of MySQL. The roles that match may be
    /// others, so that commands, keys and rules are those of the new permit. Errors: [`Denied`]; the old permit stays.
    pub fn reauthorize(&self, permit: &Permit, db_user: &str, db_name: &str) -> Result<Permit, Denied> {
        let Permit { database, mfa_verified, device_trusted, .. } = permit;
        let (mfa_verified, device_trusted) = (*mfa_verified, *device_trusted);
        self.authorize(&Request { database, db_user, db_name, mfa_verified, device_trusted })
    }

    /// Whether the rules of the roles permit `verb` on resources of `kind` (access-model 7.1). A `where` is not
    /// evaluated: a rule with one never allows and always denies. What everybody may do with their own resources,
    /// and lists filtered by [`Self::can_see`], need no rule.
    pub fn allows_rule(&self, kind: &str, verb: &str) -> bool {
        let covers = |words: &[String], word: &str| words.iter().any(|known| known == word || known == "*");
        let denied = self.roles.iter().flat_map(|role| &role.spec.deny.rules);
        let allowed = self.roles.iter().flat_map(|role| &role.spec.allow.rules);
        let mut denied = denied.filter(|rule| covers(&rule.resources, kind) && covers(&rule.verbs, verb));
        let mut allowed = allowed.filter(|rule| covers(&rule.resources, kind) && covers(&rule.verbs, verb));
        denied.next().is_none() && allowed.any(|rule| !rule.limited)
    }

    /// The decision of access-model 5.5, its steps in order.
    fn evaluate(&self, request: &Request<'_>) -> Result<&ReadyRole, Because> {
        let database = request.database;
        let asked = self.asked(request);
        asked.check_length(database.protocol)?;
        if !self.may_reach(database) {
            return Err(Because::NotInRequestedResources);
        }
        if self.mfa_always && !request.mfa_verified {
            return Err(Because::MfaRequired { role: None });
        }
        if self.may_deny(&asked) {
            for role in &self.roles {
                self.check_denials(role, database, &asked)?;
            }
        }
        let mut allowing = None;
        for role in self.reaching(database) {
            if !asked.is_in(&role.allow.users, &role.allow.names) {
                continue;
            }
            let options = role.options();
            if options.require_session_mfa.is_demanded() && !request.mfa_verified {
                return Err(Because::MfaRequired { role: Some(Arc::clone(&role.name)) });
            }
            if options.device_trust_mode.is_demanded() && !request.device_trusted {
                return Err(Because::DeviceRequired { role: Arc::clone(&role.name) });
            }
            if request.mfa_verified && request.device_trusted {
                return Ok(role);
            }
            // A stricter role may follow.
            allowing = allowing.or(Some(role));
        }
        allowing.ok_or_else(|| self.nearest_miss(database, &asked))
    }

    /// Whether some role has to be asked if it denies.
    fn may_deny(&self, asked: &Asked<'_>) -> bool {
        let denied = &self.denied;
        denied.labels
            || denied.users.may_hold(Filter::of(asked.user))
            || asked.name.is_some_and(|name| denied.names.may_hold(Filter::of(name)))
    }

    fn check_denials(&self, role: &ReadyRole, database: &Database, asked: &Asked<'_>) -> Result<(), Because> {
        let labels = &database.labels;
        let clause = if labels.filter().may_hold(role.gate.denied_labels) && role.denies_labels(labels, self.facts()) {
            role.deny.describe()
        } else if role.deny.users.matches(asked.user) {
            format!("db_users {:?}", asked.user)
        } else if asked.name.is_some_and(|name| role.deny.names.matches(name)) {
            format!("db_names {:?}", asked.effective_name)
        } else {
            return Ok(());
        };
        Err(Because::DeniedBy { role: Arc::clone(&role.name), clause })
    }

    /// The role that came nearest: labels and user, then labels, then any that selects databases.
    #[cold]
    fn nearest_miss(&self, database: &Database, asked: &Asked<'_>) -> Because {
        let mut reaching = self.reaching(database);
        let first = reaching.next();
        let with_user = first.into_iter().chain(reaching).find(|role| role.allow.users.matches(asked.user));
        let (role, clause, found) = if let Some(role) = with_user {
            let found = format!("the name asked for is {:?}", asked.effective_name);
            (role, list("db_names", &role.allow.names), found)
        } else if let Some(role) = first {
            (role, list("db_users", &role.allow.users), format!("the user asked for is {:?}", asked.user))
        } else if let Some(role) = self.roles.iter().find(|role| role.allow.selects_databases()) {
            (&**role, role.clause.to_string(), labels_for_people(role, database))
        } else {
            return Because::NothingAllowed;
        };
        Because::NotAllowed { role: Arc::clone(&role.name), clause, found }
    }

    /// The roles whose allow labels match.
    fn reaching<'p>(&'p self, database: &Database) -> impl Iterator<Item = &'p ReadyRole> {
        let labels = &database.labels;
        let held = labels.filter();
        let gates = self.allowed_labels.iter().zip(&self.roles);
        let may = gates.filter(move |(demanded, _)| held.may_hold(**demanded)).map(|(_, role)| &**role);
        may.filter(move |role| role.allows_labels(labels, self.facts()))
    }

    fn may_reach(&self, database: &Database) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&database.name))
    }

    fn enforces_names(&self, protocol: DatabaseProtocol) -> bool {
        protocol.enforces_names() || (self.options.enforce_db_names && protocol.may_enforce_names())
    }

    fn asked<'r>(&self, request: &Request<'r>) -> Asked<'r> {
        let protocol = request.database.protocol;
        let effective_name = match (protocol, request.db_name) {
            (DatabaseProtocol::Postgres, "") => request.db_user,
            (DatabaseProtocol::Redis, "") => "0",
            (_, name) => name,
        };
        let name = self.enforces_names(protocol).then_some(effective_name);
        Asked { user: request.db_user, name, effective_name }
    }

    fn facts(&self) -> Facts<'_> {
        Facts { user: &self.user, traits: &self.traits }
    }

    fn words<'p>(
        &'p self,
        database: &Database,
        lists: impl Fn(&'p ReadyRole) -> (&'p NameList, &'p NameList),
    ) -> Vec<String> {
        let denied = |word: &str| self.roles.iter().any(|role| lists(role).1.matches(word));
        let all = self.roles.iter().any(|role| lists(role).1.matches_everything());
        if all || !self.can_see(database) {
            return Vec::new();
        }
        let words: BTreeSet<&str> = self.reaching(database).flat_map(|role| lists(role).0.words()).collect();
        words.into_iter().filter(|word| *word == "*" || !denied(word)).map(str::to_owned).collect()
    }
}

/// What no role denies is told apart here, without a look at the roles.
#[derive(Debug, Clone, Copy, Default)]
struct DenyFilters {
    /// A role denies by labels.
    labels: bool,
    users: Filter,
    names: Filter,
}

impl DenyFilters {
    fn with(self, role: &ReadyRole) -> Self {
        let gate = &role.gate;
        Self {
            labels: self.labels || gate.denied_labels != Filter::FULL,
            users: self.users.with(gate.denied_users),
            names: self.names.with(gate.denied_names),
        }
    }
}

/// What of a request the lists are asked about.
struct Asked<'r> {
    user: &'r str,
    /// Absent where `db_names` is not checked.
    name: Option<&'r str>,
    effective_name: &'r str,
}

impl Asked<'_> {
    fn is_in(&self, users: &NameList, names: &NameList) -> bool {
        users.matches(self.user) && self.name.is_none_or(|name| names.matches(name))
    }

    fn check_length(&self, protocol: DatabaseProtocol) -> Result<(), Because> {
        let Some(bytes_max) = protocol.name_bytes_max() else { return Ok(()) };
        for (what, name) in [("user", self.user), ("name", self.effective_name)] {
            if name.len() > bytes_max {
                return Err(Because::NameTooLong { what, bytes: name.len(), bytes_max });
            }
        }
        Ok(())
    }
}

impl SessionMfa {
    fn is_demanded(self) -> bool {
        self != Self::No
    }
}

impl DeviceTrust {
    fn is_demanded(self) -> bool {
        self >= Self::RequiredForHumans
    }
}

fn list(field: &str, names: &NameList) -> String {
    let words: Vec<&str> = names.words().collect();
    match words.is_empty() {
        true => format!("no {field}"),
        false => format!("{field} {}", words.join(", ")),
    }
}

fn labels_for_people(role: &ReadyRole, database: &Database) -> String {
    let keys: BTreeSet<&str> = role.allow.label_keys().collect();
    let label = |key: &&str| match database.labels.get(key) {
        Some(value) => format!("{key}={value}"),
        None => format!("no {key}"),
    };
    let mut labels: Vec<String> = keys.iter().map(label).collect();
    if labels.is_empty() {
        labels = database.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    }
    match labels.is_empty() {
        true => format!("{:?} has no labels", database.name),
        false => format!("{:?} has {}", database.name, labels.join(", ")),
    }
}
