//! The access-request parts of a role: read strictly and kept; what they mean is the control plane's.

use serde_json::Value;

use super::fields::{Fields, Reading};
use crate::expression::check_predicate;
use crate::pattern::{Pattern, compile_regex};
use crate::template::{Template, quoted_string};

const REQUEST: &[&str] = &[
    "roles",
    "claims_to_roles",
    "annotations",
    "search_as_roles",
    "max_duration",
    "reason",
    "suggested_reviewers",
    "thresholds",
];
const REVIEW: &[&str] = &["roles", "claims_to_roles", "where", "preview_as_roles"];
const REASON_MODES: &[(&str, ())] = &[("optional", ()), ("required", ())];

pub(super) fn check_request(conditions: &Fields<'_>, in_deny: bool) {
    let fields = conditions.map("request");
    fields.allow_only(REQUEST, &["kubernetes_resources"]);
    matchers(&fields, "roles");
    claims(&fields);
    let annotations = fields.map("annotations");
    for (key, _) in annotations.entries() {
        for (path, text) in annotations.texts(key).unwrap_or_default() {
            if let Err(error) = Template::parse(text) {
                fields.complaints.error(&path, error);
            }
        }
    }
    fields.texts("search_as_roles");
    fields.texts("suggested_reviewers");
    fields.duration("max_duration");
    let reason = fields.map("reason");
    reason.allow_only(&["mode", "prompt"], &[]);
    reason.choice("mode", REASON_MODES);
    reason.text("prompt");
    if in_deny && fields.is_present("thresholds") {
        fields.error("thresholds", "thresholds stand in allow only");
    }
    for threshold in fields.maps("thresholds") {
        threshold.allow_only(&["name", "filter", "approve", "deny"], &[]);
        threshold.text("name");
        if let Some(filter) = threshold.text("filter").filter(|filter| !filter.is_empty()) {
            predicate(&threshold, "filter", filter);
        }
        let count = |name| threshold.count(name).unwrap_or(0);
        if count("approve") == 0 && count("deny") == 0 {
            threshold.complaints.error(&threshold.path, "a threshold needs approve or deny above 0");
        }
    }
}

pub(super) fn check_review(conditions: &Fields<'_>) {
    let fields = conditions.map("review_requests");
    fields.allow_only(REVIEW, &[]);
    matchers(&fields, "roles");
    claims(&fields);
    fields.texts("preview_as_roles");
    if let Some(filter) = fields.text("where").filter(|filter| !filter.is_empty()) {
        predicate(&fields, "where", filter);
    }
}

/// Complains about a predicate with a fault; one from storage is kept, and fails closed where it is used.
pub(super) fn predicate(fields: &Fields<'_>, name: &str, source: &str) {
    if let Err(error) = check_predicate(source) {
        match fields.complaints.reading {
            Reading::Write => fields.error(name, error),
            Reading::Stored => fields.complaints.warn(format_args!("{}: {error}", fields.at(name))),
        }
    }
}

fn claims(fields: &Fields<'_>) {
    for claim in fields.maps("claims_to_roles") {
        claim.allow_only(&["claim", "value", "roles"], &[]);
        claim.text("claim");
        if let Some(Err(error)) = claim.text("value").map(Pattern::glob_or_regex) {
            claim.error("value", error);
        }
        matchers(&claim, "roles");
    }
}

/// Checks a list of role matchers: literal, glob, `^regex$`, or one matcher call between literals (access-model 6.5).
fn matchers(fields: &Fields<'_>, name: &str) {
    for (path, text) in fields.texts(name).unwrap_or_default() {
        if let Err(message) = matcher(text) {
            fields.complaints.error(&path, message);
        }
    }
}

fn matcher(text: &str) -> Result<(), String> {
    let Some((prefix, rest)) = text.split_once("{{") else {
        return Pattern::glob_or_regex(text).map(drop).map_err(|error| error.to_string());
    };
    let unreadable = || format!("`{text}` is no matcher; write {{{{regexp.match(\"…\")}}}} or regexp.not_match");
    let rest = rest.trim_start();
    let call = rest.strip_prefix("regexp.match(").or_else(|| rest.strip_prefix("regexp.not_match("));
    let call = call.ok_or_else(unreadable)?.trim_start();
    let (pattern, length) = quoted_string(call).ok_or_else(unreadable)?;
    let tail = call[length..].trim_start().strip_prefix(')').ok_or_else(unreadable)?;
    let suffix = tail.trim_start().strip_prefix("}}").ok_or_else(unreadable)?;
    if [prefix, suffix].iter().any(|part| part.contains(['{', '}'])) {
        return Err(unreadable());
    }
    compile_regex(&pattern).map(drop).map_err(|error| error.to_string())
}

/// Reads `db_permissions`, which nothing uses yet, for what must be refused when written.
pub(super) fn check_permissions(conditions: &Fields<'_>, in_deny: bool) {
    for entry in conditions.maps("db_permissions") {
        entry.allow_only(&["match", "permissions"], &[]);
        let permissions = entry.texts("permissions").unwrap_or_default();
        if in_deny {
            continue;
        }
        if permissions.is_empty() {
            entry.error("permissions", "at least one permission is needed");
        }
        for (path, text) in permissions {
            if matches!(text.trim(), "" | "*") {
                entry.complaints.error(&path, "a permission in allow is named, not empty and not `*`");
            }
        }
        if entry.map("match").entries().next().is_none() {
            entry.error("match", "at least one label is needed");
        }
    }
}

/// Whether a value is there and not an empty list or map.
pub(super) fn is_filled(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_the_forms_of_a_role_matcher() {
        for good in ["common", "dev-*", "^dev-.*$", r#"dev-{{regexp.not_match("beta")}}-prod"#, "*"] {
            super::matcher(good).unwrap();
        }
        for bad in ["^(dev$", "a{{b", r#"{{regexp.match("(")}}"#, "{{internal.logins}}", r#"{{regexp.match("a")}}}"#] {
            assert!(super::matcher(bad).is_err(), "{bad}");
        }
    }
}
