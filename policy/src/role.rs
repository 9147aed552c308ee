//! A role made ready for one identity: templates expanded, patterns compiled.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::Entry;
use crate::document::{Conditions, LabelSelector, RoleSpec, StoredExpression};
use crate::filter::Filter;
use crate::key::KeyGlob;
use crate::labels::Labels;
use crate::options::RoleOptions;
use crate::pattern::Pattern;
use crate::principals::{Effect, NameList};
use crate::template::{ExpandError, Facts, Template};

/// A role of a snapshot: as written, and made ready where it is the same for every identity.
#[derive(Debug)]
pub(crate) struct CompiledRole {
    spec: Arc<RoleSpec>,
    fixed: Option<Arc<ReadyRole>>,
}

/// A role for one identity.
#[derive(Debug)]
pub(crate) struct ReadyRole {
    pub(crate) name: Arc<str>,
    pub(crate) allow: Side,
    pub(crate) deny: Side,
    pub(crate) spec: Arc<RoleSpec>,
    /// What the role allows by labels, for people; made once so that a decision allocates nothing.
    pub(crate) clause: Arc<str>,
    /// What a decision looks at first.
    pub(crate) gate: Gate,
}

/// What a request must hold before the lists of a role are worth a look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gate {
    /// In the labels of a database that the role may allow.
    pub(crate) allowed_labels: Filter,
    /// In the labels of a database that the role may deny.
    pub(crate) denied_labels: Filter,
    /// Every user that the role may deny.
    pub(crate) denied_users: Filter,
    /// Every name that the role may deny.
    pub(crate) denied_names: Filter,
}

/// One of `allow` and `deny` for one identity.
#[derive(Debug)]
pub(crate) struct Side {
    labels: Option<LabelMatcher>,
    expression: Option<StoredExpression>,
    pub(crate) users: NameList,
    pub(crate) names: NameList,
    pub(crate) db_roles: Vec<String>,
}

#[derive(Debug, Default)]
struct LabelMatcher {
    /// Matches without looking: `*: *`, or an expansion that failed in `deny`.
    any: bool,
    keys: Vec<(String, ValueMatcher)>,
}

#[derive(Debug, Default)]
struct ValueMatcher {
    any: bool,
    patterns: Vec<Pattern>,
}

impl CompiledRole {
    pub(crate) fn new(spec: &Arc<RoleSpec>) -> Self {
        let nobody = Facts { user: "", traits: &BTreeMap::new() };
        let fixed = [&spec.allow, &spec.deny].into_iter().all(is_fixed);
        Self { spec: Arc::clone(spec), fixed: fixed.then(|| Arc::new(ReadyRole::new(spec, nobody))) }
    }

    pub(crate) fn ready(&self, facts: Facts<'_>) -> Arc<ReadyRole> {
        match &self.fixed {
            Some(ready) => Arc::clone(ready),
            None => Arc::new(ReadyRole::new(&self.spec, facts)),
        }
    }
}

impl CompiledRole {
    /// Whether `@local_infile` stands in its `allow.db_commands`.
    pub(crate) fn grants_local_files(&self) -> bool {
        let commands = self.spec.allow.commands.as_deref().unwrap_or_default();
        commands.iter().any(|entry| entry.as_str().eq_ignore_ascii_case("@local_infile"))
    }
}

fn is_fixed(conditions: &Conditions) -> bool {
    let labels = conditions.labels.iter().flatten().flat_map(|(key, values)| values.iter().chain([key]));
    labels.chain(&conditions.db_roles).all(|template| template.literal().is_some())
        && conditions.users.iter().chain(&conditions.names).all(|entry| entry.is_fixed())
}

impl ReadyRole {
    fn new(spec: &Arc<RoleSpec>, facts: Facts<'_>) -> Self {
        let allow = Side::new(&spec.allow, facts, Effect::Allow);
        let deny = Side::new(&spec.deny, facts, Effect::Deny);
        let clause = allow.describe().into();
        let gate = Gate {
            allowed_labels: allow.demanded_of_labels(Effect::Allow),
            denied_labels: deny.demanded_of_labels(Effect::Deny),
            denied_users: deny.users.filter(),
            denied_names: deny.names.filter(),
        };
        Self { name: spec.metadata.name.as_str().into(), gate, allow, deny, clause, spec: Arc::clone(spec) }
    }

    pub(crate) fn options(&self) -> &RoleOptions {
        &self.spec.options
    }

    /// The commands of a connection that the role matches; absent where it does not limit them.
    pub(crate) fn allowed_commands(&self) -> Option<&[Entry]> {
        self.spec.allow.commands.as_deref()
    }

    /// The commands that the role takes from every connection.
    pub(crate) fn denied_commands(&self) -> &[Entry] {
        self.spec.deny.commands.as_deref().unwrap_or_default()
    }

    /// The globs of keys that the role limits its connections to; absent where it does not.
    pub(crate) fn keys(&self) -> Option<&[KeyGlob]> {
        self.spec.allow.keys.as_deref()
    }

    pub(crate) fn has_expression(&self) -> bool {
        self.allow.expression.is_some() || self.deny.expression.is_some()
    }

    /// Whether the allow labels match: map and expression both, where both stand.
    pub(crate) fn allows_labels(&self, labels: &Labels, facts: Facts<'_>) -> bool {
        let side = &self.allow;
        match (&side.labels, &side.expression) {
            (None, None) => false,
            (Some(map), None) => map.matches(labels),
            (None, Some(expression)) => holds(expression, labels, facts, Effect::Allow),
            (Some(map), Some(expression)) => map.matches(labels) && holds(expression, labels, facts, Effect::Allow),
        }
    }

    /// Whether the deny labels match: map or expression.
    pub(crate) fn denies_labels(&self, labels: &Labels, facts: Facts<'_>) -> bool {
        let side = &self.deny;
        side.labels.as_ref().is_some_and(|map| map.matches(labels))
            || side.expression.as_ref().is_some_and(|expression| holds(expression, labels, facts, Effect::Deny))
    }
}

/// The value of an expression; one that fails is no match in allow and a match in deny.
fn holds(expression: &StoredExpression, labels: &Labels, facts: Facts<'_>, effect: Effect) -> bool {
    let failed = effect == Effect::Deny;
    match expression {
        StoredExpression::Reads(expression) => expression.evaluate(labels, facts).unwrap_or(failed),
        StoredExpression::Broken => failed,
    }
}

impl Side {
    fn new(conditions: &Conditions, facts: Facts<'_>, effect: Effect) -> Self {
        let mut db_roles = Vec::new();
        for template in &conditions.db_roles {
            match template.expand(facts) {
                Ok(values) => db_roles.extend(values),
                Err(ExpandError { .. }) if effect == Effect::Deny => db_roles.push("*".to_owned()),
                Err(_) => {}
            }
        }
        Self {
            labels: conditions
                .labels
                .as_ref()
                .filter(|selector| !selector.is_empty())
                .map(|selector| LabelMatcher::expand(selector, facts, effect)),
            expression: conditions.expression.clone(),
            users: NameList::expand(&conditions.users, facts, effect),
            names: NameList::expand(&conditions.names, facts, effect),
            db_roles,
        }
    }

    /// What the labels of a database hold where this side matches them; [`Filter::FULL`] where it never does.
    fn demanded_of_labels(&self, effect: Effect) -> Filter {
        match (&self.labels, &self.expression) {
            (None, None) => Filter::FULL,
            (None, Some(_)) => Filter::default(),
            // In deny either suffices.
            (Some(_), Some(_)) if effect == Effect::Deny => Filter::default(),
            (Some(map), _) => map.demands(),
        }
    }

    /// The labels as people read them: `db_labels env=staging`.
    pub(crate) fn describe(&self) -> String {
        let mut parts = Vec::new();
        if let Some(map) = &self.labels {
            parts.push(format!("db_labels {}", map.describe()));
        }
        match &self.expression {
            Some(StoredExpression::Reads(expression)) => {
                parts.push(format!("db_labels_expression `{}`", expression.source().trim()));
            }
            Some(StoredExpression::Broken) => parts.push("db_labels_expression that does not read".to_owned()),
            None => {}
        }
        match parts.is_empty() {
            true => "no database".to_owned(),
            false => parts.join(" and "),
        }
    }

    /// The label keys that the selector looks at.
    pub(crate) fn label_keys(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().flat_map(|map| &map.keys).map(|(key, _)| key.as_str())
    }

    pub(crate) fn selects_databases(&self) -> bool {
        self.labels.is_some() || self.expression.is_some()
    }
}

impl ValueMatcher {
    fn is_text(&self) -> bool {
        self.any || self.patterns.iter().all(|pattern| matches!(pattern, Pattern::Literal(_)))
    }

    fn matches(&self, value: &str) -> bool {
        self.any || self.patterns.iter().any(|pattern| pattern.matches(value))
    }
}

impl LabelMatcher {
    fn expand(selector: &LabelSelector, facts: Facts<'_>, effect: Effect) -> Self {
        let mut matcher = Self::default();
        for (key, values) in selector {
            if matcher.add(key, values, facts).is_err() {
                match effect {
                    Effect::Deny => matcher.any = true,
                    // A key without values never matches, and every key must.
                    Effect::Allow => matcher.keys.push((String::new(), ValueMatcher::default())),
                }
            }
        }
        // Texts are compared before patterns are run.
        for (_, values) in &mut matcher.keys {
            values.patterns.sort_by_key(|pattern| !matches!(pattern, Pattern::Literal(_)));
        }
        matcher.keys.sort_by_key(|(_, values)| !values.is_text());
        // The wildcard key stands for the whole map only where nothing else is asked for.
        if let [(key, values)] = matcher.keys.as_slice()
            && key == "*"
            && values.any
        {
            matcher.any = true;
        }
        matcher
    }

    fn add(&mut self, key: &Template, values: &[Template], facts: Facts<'_>) -> Result<(), ExpandError> {
        let key = key.expand(facts)?.into_iter().next().unwrap_or_default();
        let mut matcher = ValueMatcher::default();
        for template in values {
            let mut expanded = template.expand(facts)?;
            if expanded.is_empty() {
                expanded.push(String::new());
            }
            for value in expanded {
                if value == "*" {
                    matcher.any = true;
                } else {
                    matcher.patterns.push(Pattern::glob_or_regex(&value).map_err(|_| ExpandError::PATTERN)?);
                }
            }
        }
        self.keys.push((key, matcher));
        Ok(())
    }

    fn matches(&self, labels: &Labels) -> bool {
        let one = |(key, values): &(String, ValueMatcher)| labels.get(key).is_some_and(|found| values.matches(found));
        self.any || (!self.keys.is_empty() && self.keys.iter().all(one))
    }

    /// Every key, and the value where it can be only one.
    fn demands(&self) -> Filter {
        let one = |(key, values): &(String, ValueMatcher)| match (values.any, values.patterns.as_slice()) {
            (false, []) => Filter::FULL,
            (false, [Pattern::Literal(value)]) => Filter::of(key).with(Filter::of_pair(key, value)),
            _ => Filter::of(key),
        };
        match (self.any, self.keys.is_empty()) {
            (true, _) => Filter::default(),
            (false, true) => Filter::FULL,
            (false, false) => self.keys.iter().map(one).fold(Filter::default(), Filter::with),
        }
    }

    fn describe(&self) -> String {
        let keys = self.keys.iter().map(|(key, values)| {
            let mut words: Vec<String> = values.patterns.iter().map(Pattern::to_string).collect();
            if values.any {
                words.insert(0, "*".to_owned());
            }
            match words.as_slice() {
                [word] => format!("{key}={word}"),
                _ => format!("{key}=[{}]", words.join(", ")),
            }
        });
        keys.collect::<Vec<_>>().join(", ")
    }
}
