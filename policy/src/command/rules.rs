//! What the roles of one connection permit and deny, put together once.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use super::{CommandFacts, Entry};

/// The commands of one connection. A clone is a counter; two that were put together from the same lists are equal,
/// so that whatever is computed from one can be kept under it.
#[derive(Clone)]
pub struct CommandRules(Arc<Lists>);

#[derive(PartialEq, Eq, Hash)]
struct Lists {
    /// A matching role has no `db_commands`: all known commands.
    known: bool,
    /// A matching role has `*`: unknown commands too.
    everything: bool,
    /// Other entries of the matching roles. Sorted, none twice.
    granted: Box<[Entry]>,
    /// Deny entries of every role, each with its role. Sorted, none twice.
    denied: Box<[(Entry, Arc<str>)]>,
    /// The matching roles that have the field, for the reason of a refusal.
    listing: Box<[Arc<str>]>,
    /// Hash of the above, so that unequal rules are rarely looked at.
    fingerprint: u64,
}

/// The answer for one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict<'r> {
    /// Whether the command is permitted.
    pub allowed: bool,
    /// Why.
    pub clause: Clause<'r>,
}

/// Why a command is permitted or not; its text is for the audit and for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clause<'r> {
    /// A matching role allows it and none denies it.
    Allowed,
    /// An entry of a role's `deny.db_commands` covers it.
    DeniedBy {
        /// The role.
        role: &'r str,
        /// The entry, as written.
        entry: &'r str,
    },
    /// It needs a right that no matching role names.
    RightNotNamed {
        /// The right, without `@`.
        right: &'r str,
    },
    /// It is not known, and no matching role has `*`.
    Unknown,
    /// The matching roles have `db_commands`, and none holds it.
    NotAllowed {
        /// These roles, sorted.
        roles: &'r [Arc<str>],
    },
}

static DEFAULT: LazyLock<CommandRules> =
    LazyLock::new(|| CommandRules::new(true, false, Vec::new(), Vec::new(), Vec::new()));

impl CommandRules {
    /// Judges one command. Allocates nothing, whatever the answer.
    pub fn judge<'r>(&'r self, command: &CommandFacts<'r>) -> Verdict<'r> {
        let lists = &*self.0;
        let no = |clause| Verdict { allowed: false, clause };
        if let Some((entry, role)) = lists.denied.iter().find(|(entry, _)| entry.covers(command)) {
            return no(Clause::DeniedBy { role, entry: entry.as_str() });
        }
        let free = command.right.is_none();
        let granted = match command.known {
            false => lists.everything && free,
            true => {
                (free && (lists.known || lists.everything)) || lists.granted.iter().any(|entry| entry.grants(command))
            }
        };
        match (granted, command.right) {
            (true, _) => Verdict { allowed: true, clause: Clause::Allowed },
            (false, _) if !command.known => no(Clause::Unknown),
            (false, Some(right)) => no(Clause::RightNotNamed { right }),
            (false, None) => no(Clause::NotAllowed { roles: &lists.listing }),
        }
    }

    /// Whether, of the known commands, exactly those without a right are permitted: what a role without
    /// `db_commands` gives. Unknown commands are [`Self::allows_unknown`]'s matter.
    pub fn is_unrestricted(&self) -> bool {
        let lists = &*self.0;
        (lists.known || lists.everything) && lists.granted.is_empty() && lists.denied.is_empty()
    }

    /// Whether unknown commands are permitted, those denied by name excepted.
    pub fn allows_unknown(&self) -> bool {
        self.0.everything && !self.0.denied.iter().any(|(entry, _)| entry.is_wildcard())
    }

    /// Puts together what the matching roles allow, an absent list being everything known, and what all roles deny.
    pub(crate) fn merge<'r>(
        matching: impl Iterator<Item = (&'r Arc<str>, Option<&'r [Entry]>)> + Clone,
        all: impl Iterator<Item = (&'r Arc<str>, &'r [Entry])> + Clone,
    ) -> Self {
        let mut open = matching.clone();
        if open.next().is_some_and(|(_, first)| first.is_none())
            && open.all(|(_, list)| list.is_none())
            && all.clone().all(|(_, list)| list.is_empty())
        {
            return Self::default();
        }
        let (mut known, mut everything) = (false, false);
        let (mut granted, mut listing) = (Vec::new(), Vec::new());
        for (role, list) in matching {
            let Some(entries) = list else {
                known = true;
                continue;
            };
            listing.push(Arc::clone(role));
            everything |= entries.iter().any(Entry::is_wildcard);
            granted.extend(entries.iter().filter(|entry| !entry.is_wildcard()).cloned());
        }
        let denied = all.flat_map(|(role, list)| list.iter().map(|entry| (entry.clone(), Arc::clone(role))));
        Self::new(known, everything, granted, denied.collect(), listing)
    }

    fn new(
        known: bool,
        everything: bool,
        granted: Vec<Entry>,
        denied: Vec<(Entry, Arc<str>)>,
        listing: Vec<Arc<str>>,
    ) -> Self {
        let (granted, denied, listing) = (sorted(granted), sorted(denied), sorted(listing));
        let mut lists = Lists { known, everything, granted, denied, listing, fingerprint: 0 };
        let mut hasher = DefaultHasher::new();
        lists.hash(&mut hasher);
        lists.fingerprint = hasher.finish();
        Self(Arc::new(lists))
    }
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Box<[T]> {
    list.sort_unstable();
    list.dedup();
    list.into()
}

impl Default for CommandRules {
    /// What a role without `db_commands` gives; always the same shared value.
    fn default() -> Self {
        DEFAULT.clone()
    }
}

impl PartialEq for CommandRules {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.fingerprint == other.0.fingerprint && self.0 == other.0)
    }
}

impl Eq for CommandRules {}

impl Hash for CommandRules {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.fingerprint);
    }
}

impl fmt::Debug for CommandRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lists { known, everything, granted, denied, .. } = &*self.0;
        f.debug_struct("CommandRules")
            .field("known", known)
            .field("everything", everything)
            .field("granted", granted)
            .field("denied", denied)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Clause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed => f.write_str("allowed"),
            Self::DeniedBy { role, entry } => write!(f, "role {role:?} denies db_commands {entry}"),
            Self::RightNotNamed { right } => write!(f, "needs the right @{right}, which no role of this session names"),
            Self::Unknown => f.write_str("unknown command, which only db_commands `*` allows"),
            Self::NotAllowed { roles } => {
                f.write_str("not in db_commands of ")?;
                for (at, role) in roles.iter().enumerate() {
                    let between = if at > 0 { ", " } else { "" };
                    write!(f, "{between}role {role:?}")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it matches the connection, its allow list and its deny list.
    type Role<'r> = (bool, Option<&'r [&'r str]>, &'r [&'r str]);

    fn rules(roles: &[Role<'_>]) -> CommandRules {
        let entries = |list: &[&str]| list.iter().map(|text| Entry::new(text)).collect::<Vec<_>>();
        let names: Vec<Arc<str>> = (0..roles.len()).map(|at| format!("role-{at}").into()).collect();
        let allow: Vec<_> = roles.iter().map(|(_, allow, _)| allow.map(entries)).collect();
        let deny: Vec<_> = roles.iter().map(|(.., deny)| entries(deny)).collect();
        let matching = (0..roles.len()).filter(|at| roles[*at].0);
        CommandRules::merge(
            matching.map(|at| (&names[at], allow[at].as_deref())),
            names.iter().zip(deny.iter().map(Vec::as_slice)),
        )
    }

    fn allowing(allow: &[&str]) -> CommandRules {
        rules(&[(true, Some(allow), &[])])
    }

    const GET: CommandFacts<'_> =
        CommandFacts { name: "GET", sub: None, classes: &["read", "string", "fast"], known: true, right: None };
    const SET: CommandFacts<'_> = CommandFacts { name: "SET", classes: &["write", "string", "slow"], ..GET };
    const CONFIG_SET: CommandFacts<'_> =
        CommandFacts { name: "CONFIG", sub: Some("SET"), classes: &["admin", "dangerous"], ..GET };
    const CONFIG_GET: CommandFacts<'_> = CommandFacts { sub: Some("GET"), ..CONFIG_SET };
    const MONITOR: CommandFacts<'_> =
        CommandFacts { name: "MONITOR", classes: &["admin", "dangerous"], right: Some("monitor"), ..GET };
    const FAILOVER: CommandFacts<'_> =
        CommandFacts { name: "CLUSTER", sub: Some("FAILOVER"), right: Some("outbound"), ..CONFIG_SET };
    const NOSUCH: CommandFacts<'_> = CommandFacts { name: "NOSUCH", classes: &[], known: false, ..GET };

    /// Which of the commands are permitted.
    fn permitted(rules: &CommandRules) -> Vec<String> {
        let all = [GET, SET, CONFIG_GET, CONFIG_SET, MONITOR, FAILOVER, NOSUCH];
        let full = |facts: &CommandFacts<'_>| match facts.sub {
            Some(sub) => format!("{}|{sub}", facts.name),
            None => facts.name.to_owned(),
        };
        all.iter().filter(|facts| rules.judge(facts).allowed).map(full).collect()
    }

    #[test]
    fn permits_all_known_commands_but_no_right_where_the_field_is_absent() {
        let known = ["GET", "SET", "CONFIG|GET", "CONFIG|SET"];
        assert_eq!(permitted(&rules(&[(true, None, &[])])), known);
        assert_eq!(permitted(&rules(&[(true, None, &[]), (true, Some(&["GET"]), &[])])), known);
        assert!(permitted(&rules(&[(true, Some(&["GET"]), &[])])) == ["GET"]);
        assert!(permitted(&allowing(&[])).is_empty());
    }

    #[test]
    fn permits_unknown_commands_by_the_wildcard_alone() {
        assert_eq!(permitted(&allowing(&["*"])), ["GET", "SET", "CONFIG|GET", "CONFIG|SET", "NOSUCH"]);
        assert!(permitted(&allowing(&["NOSUCH"])).is_empty());
        assert!(allowing(&["*"]).allows_unknown() && !allowing(&["GET"]).allows_unknown());
        assert!(!rules(&[(true, Some(&["*"]), &["*"])]).allows_unknown());
        let denied = rules(&[(true, Some(&["*"]), &["nosuch"])]);
        assert!(denied.allows_unknown() && !denied.judge(&NOSUCH).allowed);
    }

    #[test]
    fn permits_a_right_only_where_it_or_the_very_command_is_named() {
        for implying in ["*", "@admin", "@dangerous", "CLUSTER", "MONITOR|X"] {
            let rules = allowing(&[implying]);
            assert!(!rules.judge(&MONITOR).allowed && !rules.judge(&FAILOVER).allowed, "{implying}");
        }
        assert_eq!(permitted(&allowing(&["@monitor"])), ["MONITOR"]);
        assert_eq!(permitted(&allowing(&["monitor"])), ["MONITOR"]);
        assert_eq!(permitted(&allowing(&["cluster|failover"])), ["CLUSTER|FAILOVER"]);
        assert_eq!(permitted(&allowing(&["@Outbound"])), ["CLUSTER|FAILOVER"]);
        assert!(permitted(&rules(&[(true, Some(&["@monitor"]), &["@monitor"])])).is_empty());
    }

    #[test]
    fn keeps_the_admin_class_of_mongodb_a_right() {
        let shutdown =
            CommandFacts { name: "shutdown", sub: None, classes: &["admin"], known: true, right: Some("admin") };
        assert!(!CommandRules::default().judge(&shutdown).allowed && !allowing(&["*"]).judge(&shutdown).allowed);
        assert!(allowing(&["@admin"]).judge(&shutdown).allowed);
    }

    #[test]
    fn compares_names_and_classes_without_regard_to_case() {
        assert_eq!(permitted(&allowing(&["get", "Config|set"])), ["GET", "CONFIG|SET"]);
        assert_eq!(permitted(&allowing(&["@READ"])), ["GET"]);
    }

    #[test]
    fn lets_a_container_stand_for_its_sub_commands_on_both_sides() {
        assert_eq!(permitted(&allowing(&["CONFIG"])), ["CONFIG|GET", "CONFIG|SET"]);
        let denied = |deny: &'static [&'static str]| permitted(&rules(&[(true, Some(&["CONFIG", "GET"]), deny)]));
        assert_eq!(denied(&["CONFIG"]), ["GET"]);
        assert_eq!(denied(&["CONFIG|SET"]), ["GET", "CONFIG|GET"]);
        let sub_only = allowing(&["CONFIG|GET"]);
        assert_eq!(permitted(&sub_only), ["CONFIG|GET"]);
        assert!(!sub_only.judge(&CommandFacts::named("CONFIG")).allowed);
        assert!(allowing(&["CONFIG"]).judge(&CommandFacts::named("config|REWRITE")).allowed);
    }

    #[test]
    fn takes_allow_from_matching_roles_and_deny_from_all() {
        let roles = rules(&[(true, Some(&["GET"]), &[]), (false, Some(&["SET"]), &[]), (false, None, &["@fast"])]);
        assert!(permitted(&roles).is_empty());
        let roles = rules(&[(true, Some(&["GET"]), &[]), (true, Some(&["SET"]), &[]), (false, None, &[])]);
        assert_eq!(permitted(&roles), ["GET", "SET"]);
        assert!(permitted(&rules(&[(true, Some(&["*", "@monitor", "@outbound"]), &["*"])])).is_empty());
    }

    #[test]
    fn says_which_rule_refused() {
        let why = |rules: &CommandRules, facts: &CommandFacts<'_>| rules.judge(facts).clause.to_string();
        let denied = rules(&[(true, None, &["@write", "CONFIG|SET"])]);
        assert_eq!(why(&denied, &SET), "role \"role-0\" denies db_commands @write");
        assert_eq!(why(&denied, &CONFIG_SET), "role \"role-0\" denies db_commands CONFIG|SET");
        assert_eq!(why(&denied, &MONITOR), "needs the right @monitor, which no role of this session names");
        assert_eq!(why(&denied, &NOSUCH), "unknown command, which only db_commands `*` allows");
        let narrow = rules(&[(true, Some(&["GET"]), &[]), (true, Some(&[]), &[])]);
        assert_eq!(why(&narrow, &SET), "not in db_commands of role \"role-0\", role \"role-1\"");
        assert_eq!(narrow.judge(&GET), Verdict { allowed: true, clause: Clause::Allowed });
    }

    #[test]
    fn is_equal_for_equal_lists_and_shared_where_nothing_is_said() {
        let plain = rules(&[(true, None, &[]), (false, Some(&["GET"]), &[])]);
        assert!(Arc::ptr_eq(&plain.0, &CommandRules::default().0) && plain.is_unrestricted());
        let one = rules(&[(true, Some(&["GET", "@read"]), &["SET"])]);
        let other = rules(&[(true, Some(&["@read", "GET", "GET"]), &["SET"])]);
        assert!(one == other && one.0.fingerprint == other.0.fingerprint && !Arc::ptr_eq(&one.0, &other.0));
        assert!(one != allowing(&["GET", "@read"]));
        assert!(allowing(&["*"]).is_unrestricted() && allowing(&["*"]) != CommandRules::default());
        for restricted in [allowing(&["GET"]), allowing(&["*", "@monitor"]), rules(&[(true, None, &["GET"])])] {
            assert!(!restricted.is_unrestricted());
        }
    }
}
