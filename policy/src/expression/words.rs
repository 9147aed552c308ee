//! Names that a `where` or `filter` may use (access-model 7.2, 8.7). What is checked here is not yet evaluated: a rule
//! with a `where` never allows and always denies.

use super::ExpressionError;
use super::syntax::{Node, NodeKind, parse};

const ROOTS: [&str; 12] = [
    "user",
    "resource",
    "session",
    "session_tracker",
    "impersonate_user",
    "impersonate_role",
    "host_cert",
    "request",
    "reviewer",
    "review",
    "system",
    "labels",
];

/// Functions with the fewest and most arguments they take.
const FUNCTIONS: [(&str, usize, usize); 16] = [
    ("contains", 2, 2),
    ("equals", 2, 2),
    ("contains_any", 2, 2),
    ("contains_all", 2, 2),
    ("set", 0, usize::MAX),
    ("all_equal", 2, 2),
    ("all_end_with", 2, 2),
    ("is_subset", 2, usize::MAX),
    ("has_prefix", 2, 2),
    ("can_view", 0, 0),
    ("system.catype", 0, 0),
    ("regexp.match", 2, 2),
    ("regexp.replace", 3, 3),
    ("email.local", 1, 1),
    ("strings.upper", 1, 1),
    ("strings.lower", 1, 1),
];

/// Checks syntax, names and numbers of arguments.
pub(crate) fn check_predicate(source: &str) -> Result<(), ExpressionError> {
    let node = parse(source)?;
    match node.kind {
        NodeKind::Text(_) | NodeKind::Number(_) => {
            Err(ExpressionError::at(source, node.at, "expected true or false, found a literal"))
        }
        _ => check(source, &node),
    }
}

fn check(source: &str, node: &Node) -> Result<(), ExpressionError> {
    match &node.kind {
        NodeKind::Text(_) | NodeKind::Flag(_) | NodeKind::Number(_) => Ok(()),
        NodeKind::Name(name, _) => match ROOTS.contains(&name.split('.').next().unwrap_or(name)) {
            true => Ok(()),
            false => Err(ExpressionError::at(source, node.at, format!("unknown name `{name}`"))),
        },
        NodeKind::Call(name, arguments) => {
            let Some((_, least, most)) = FUNCTIONS.iter().find(|(known, ..)| known == name) else {
                return Err(ExpressionError::at(source, node.at, format!("unknown function `{name}`")));
            };
            if arguments.len() < *least || arguments.len() > *most {
                return Err(ExpressionError::at(source, node.at, format!("wrong number of arguments for `{name}`")));
            }
            arguments.iter().try_for_each(|argument| check(source, argument))
        }
        NodeKind::Not(inner) => check(source, inner),
        NodeKind::And(nodes) | NodeKind::Or(nodes) => nodes.iter().try_for_each(|node| check(source, node)),
        NodeKind::Equal { left, right, .. } => check(source, left).and_then(|()| check(source, right)),
    }
}

#[cfg(test)]
mod tests {
    use super::check_predicate;

    #[test]
    fn accepts_the_predicates_of_the_documents() {
        for good in [
            "contains(session.participants, user.metadata.name)",
            r#"contains(user.spec.traits["team"], resource.metadata.labels["team"]) && !equals(resource.metadata.name, "x")"#,
            r#"contains(reviewer.roles, "dba") || regexp.match(request.reason, "^T-[0-9]+$")"#,
            "can_view()",
        ] {
            check_predicate(good).unwrap();
        }
    }

    #[test]
    fn refuses_unknown_words_wrong_arity_and_broken_syntax() {
        for bad in
            ["", "contains(a.b, c)", "contains(session.x)", "frob()", "user.", "\"a\"", "user.x &&", "can_view() x"]
        {
            assert!(check_predicate(bad).is_err(), "{bad}");
        }
    }
}
