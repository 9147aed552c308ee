//! The `role` document (access-model 4).

use std::sync::Arc;

use serde_json::Value;

use super::document;
use super::envelope::{Metadata, version};
use super::fields::{Fields, Reading, nearest, texts_of};
use super::request::{check_permissions, check_request, check_review, is_filled, predicate};
use crate::command::{Entry, EntryError};
use crate::expression::LabelExpression;
use crate::key::KeyGlob;
use crate::options::{
    AuditedParameters, AuditedStatements, CreateDbUserMode, DeviceTrust, LockMode, RoleOptions, SessionMfa,
    SessionRecording, StatementAudit,
};
use crate::pattern::Pattern;
use crate::principals::NameEntry;
use crate::template::Template;

const VERSIONS: &[(&str, u8)] = &[("v8", 8), ("v7", 7), ("v6", 6), ("v5", 5), ("v4", 4), ("v3", 3)];
/// Names of the system's own roles.
const RESERVED: [&str; 3] = ["default-implicit-role", "implicit", "system"];
const RESERVED_PREFIX: &str = "ringgate:";

const CONDITIONS: &[&str] = &[
    "db_labels",
    "db_labels_expression",
    "db_users",
    "db_names",
    "db_roles",
    "db_permissions",
    "db_commands",
    "db_keys",
    "rules",
    "request",
    "review_requests",
];
/// Of resource types that we do not serve.
const CONDITIONS_KEPT: &[&str] = &[
    "node_labels",
    "node_labels_expression",
    "app_labels",
    "app_labels_expression",
    "kubernetes_labels",
    "kubernetes_labels_expression",
    "windows_desktop_labels",
    "windows_desktop_labels_expression",
    "cluster_labels",
    "cluster_labels_expression",
    "group_labels",
    "group_labels_expression",
    "workload_identity_labels",
    "workload_identity_labels_expression",
    "db_service_labels",
    "db_service_labels_expression",
    "logins",
    "windows_desktop_logins",
    "desktop_groups",
    "kubernetes_groups",
    "kubernetes_users",
    "kubernetes_resources",
    "aws_role_arns",
    "azure_identities",
    "gcp_service_accounts",
    "host_groups",
    "host_sudoers",
    "impersonate",
    "join_sessions",
    "require_session_join",
    "app_resources",
    "github_permissions",
    "account_assignments",
    "spiffe",
    "mcp",
];
/// Kept lists of principals, whose templates must parse.
const TEMPLATED: [&str; 9] = [
    "logins",
    "windows_desktop_logins",
    "desktop_groups",
    "kubernetes_groups",
    "kubernetes_users",
    "aws_role_arns",
    "azure_identities",
    "gcp_service_accounts",
    "host_groups",
];

const OPTIONS: &[&str] = &[
    "max_session_ttl",
    "client_idle_timeout",
    "disconnect_expired_cert",
    "require_session_mfa",
    "mfa_verification_interval",
    "device_trust_mode",
    "max_connections",
    "max_sessions",
    "record_session",
    "create_db_user_mode",
    "create_db_user",
    "lock",
    "pin_source_ip",
    "request_access",
    "request_prompt",
    "enforce_db_names",
    "db_audit",
];
const OPTIONS_KEPT: &[&str] = &[
    "forward_agent",
    "ssh_port_forwarding",
    "port_forwarding",
    "ssh_file_copy",
    "cert_extensions",
    "cert_format",
    "create_host_user_mode",
    "create_host_user",
    "create_host_user_default_shell",
    "create_desktop_user",
    "desktop_clipboard",
    "desktop_directory_sharing",
    "permit_x11_forwarding",
    "enhanced_recording",
    "idp",
    "create_db_user_grants",
];

const MFA: &[(&str, SessionMfa)] = &[
    ("no", SessionMfa::No),
    ("false", SessionMfa::No),
    ("off", SessionMfa::No),
    ("yes", SessionMfa::Yes),
    ("true", SessionMfa::Yes),
    ("hardware_key", SessionMfa::HardwareKey),
    ("hardware_key_pin", SessionMfa::HardwareKeyPin),
    ("hardware_key_touch", SessionMfa::HardwareKeyTouch),
    ("hardware_key_touch_and_pin", SessionMfa::HardwareKeyTouchAndPin),
];
const DEVICE_TRUST: &[(&str, DeviceTrust)] = &[
    ("", DeviceTrust::Off),
    ("off", DeviceTrust::Off),
    ("optional", DeviceTrust::Optional),
    ("required-for-humans", DeviceTrust::RequiredForHumans),
    ("required", DeviceTrust::Required),
];
const RECORDING: &[(&str, Option<SessionRecording>)] = &[
    ("", None),
    ("off", Some(SessionRecording::Off)),
    ("best_effort", Some(SessionRecording::BestEffort)),
    ("strict", Some(SessionRecording::Strict)),
];
const CREATE_DB_USER: &[(&str, Option<CreateDbUserMode>)] = &[
    ("", None),
    ("off", Some(CreateDbUserMode::Off)),
    ("false", Some(CreateDbUserMode::Off)),
    ("keep", Some(CreateDbUserMode::Keep)),
    ("best_effort_drop", Some(CreateDbUserMode::BestEffortDrop)),
];
const LOCK: &[(&str, Option<LockMode>)] =
    &[("", None), ("best_effort", Some(LockMode::BestEffort)), ("strict", Some(LockMode::Strict))];
const REQUEST_ACCESS: &[(&str, ())] = &[("optional", ()), ("always", ()), ("reason", ())];
const STATEMENTS: &[(&str, AuditedStatements)] =
    &[("all", AuditedStatements::All), ("ddl_dml", AuditedStatements::DdlDml), ("none", AuditedStatements::None)];
const PARAMETERS: &[(&str, AuditedParameters)] =
    &[("full", AuditedParameters::Full), ("types", AuditedParameters::Types), ("none", AuditedParameters::None)];

/// What a `role` document says.
#[derive(Debug)]
pub(crate) struct RoleSpec {
    pub(crate) metadata: Metadata,
    pub(crate) allow: Conditions,
    pub(crate) deny: Conditions,
    pub(crate) options: RoleOptions,
}

/// One of `allow` and `deny`.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    pub(crate) labels: Option<LabelSelector>,
    pub(crate) expression: Option<StoredExpression>,
    pub(crate) users: Vec<NameEntry>,
    pub(crate) names: Vec<NameEntry>,
    pub(crate) db_roles: Vec<Template>,
    pub(crate) commands: Option<Vec<Entry>>,
    /// In `allow` only.
    pub(crate) keys: Option<Vec<KeyGlob>>,
    pub(crate) rules: Vec<Rule>,
}

/// Label keys, all of which must match, each with the values of which one must.
pub(crate) type LabelSelector = Vec<(Template, Vec<Template>)>;

/// A label expression; one from storage may no longer read.
#[derive(Debug, Clone)]
pub(crate) enum StoredExpression {
    Reads(Arc<LabelExpression>),
    Broken,
}

/// A rule over control-plane resources (access-model 7.1).
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) resources: Vec<String>,
    pub(crate) verbs: Vec<String>,
    /// Whether a `where` limits it.
    pub(crate) limited: bool,
}

document! {
    /// A role: kind `role`, version v3 to v8.
    RoleDocument, RoleSpec
}

pub(super) fn read(root: &Fields<'_>) -> Option<RoleSpec> {
    let metadata = Metadata::read(root);
    if RESERVED.contains(&metadata.name.as_str()) || metadata.name.starts_with(RESERVED_PREFIX) {
        root.error("metadata.name", format_args!("`{}` is reserved for the system", metadata.name));
    }
    let version = version(root, VERSIONS);
    let spec = root.map("spec");
    spec.allow_only(&["allow", "deny", "options"], &[]);
    let mut allow = conditions(&spec.map("allow"), false);
    let deny = conditions(&spec.map("deny"), true);
    let options = options(&spec.map("options"));
    if version? == 3 && allow.labels.is_none() {
        allow.labels = Some(everything());
    }
    Some(RoleSpec { metadata, allow, deny, options })
}

fn everything() -> LabelSelector {
    vec![(Template::Literal("*".to_owned()), vec![Template::Literal("*".to_owned())])]
}

fn conditions(fields: &Fields<'_>, in_deny: bool) -> Conditions {
    fields.allow_only(CONDITIONS, CONDITIONS_KEPT);
    check_request(fields, in_deny);
    check_review(fields);
    check_permissions(fields, in_deny);
    check_kept(fields);
    if is_filled(fields.value("db_permissions")) {
        fields.complaints.warn("db_permissions is kept; object permissions are not served yet");
    }
    if in_deny && fields.is_present("db_keys") {
        fields.error("db_keys", "keys stand in allow only");
    }
    Conditions {
        labels: selector(fields, "db_labels"),
        expression: expression(fields, "db_labels_expression", in_deny),
        users: names(fields, "db_users"),
        names: names(fields, "db_names"),
        db_roles: db_roles(fields, in_deny),
        commands: commands(fields),
        keys: keys(fields),
        rules: rules(fields),
    }
}

/// Reads what is kept for other resource types as far as it must parse.
fn check_kept(fields: &Fields<'_>) {
    for name in TEMPLATED {
        for (path, text) in fields.texts(name).unwrap_or_default() {
            if let Err(error) = Template::parse(text) {
                fields.complaints.error(&path, error);
            }
        }
    }
    for name in CONDITIONS_KEPT.iter().filter(|name| name.ends_with("_labels")) {
        selector(fields, name);
    }
    for name in CONDITIONS_KEPT.iter().filter(|name| name.ends_with("_labels_expression")) {
        expression(fields, name, true);
    }
}

fn selector(fields: &Fields<'_>, name: &str) -> Option<LabelSelector> {
    fields.value(name)?;
    let labels = fields.map(name);
    let mut selector = Vec::new();
    for (key, value) in labels.entries() {
        let path = labels.at(key);
        let values = texts_of(&path, value, fields.complaints);
        if key == "*" && (values.len() != 1 || values.iter().any(|(_, text)| *text != "*")) {
            fields.complaints.error(&path, "the key `*` stands only with the value `*`");
        }
        let mut templates = Vec::new();
        for (path, text) in values {
            match Template::parse(text) {
                Ok(template) => {
                    if let Some(Err(error)) = template.literal().map(Pattern::glob_or_regex) {
                        fields.complaints.error(&path, error);
                    }
                    templates.push(template);
                }
                Err(error) => fields.complaints.error(&path, error),
            }
        }
        match Template::parse(key) {
            Ok(key) => selector.push((key, templates)),
            Err(error) => fields.complaints.error(&path, error),
        }
    }
    Some(selector)
}

fn expression(fields: &Fields<'_>, name: &str, in_deny: bool) -> Option<StoredExpression> {
    let source = fields.text(name).filter(|source| !source.trim().is_empty())?;
    match (LabelExpression::parse(source), fields.complaints.reading) {
        (Ok(expression), _) => {
            if !in_deny && expression.tests_membership_of_a_label() {
                fields.complaints.warn(format_args!(
                    "{}: a missing label is the empty string, which a list may contain",
                    fields.at(name)
                ));
            }
            Some(StoredExpression::Reads(Arc::new(expression)))
        }
        (Err(error), Reading::Write) => {
            fields.error(name, error);
            None
        }
        (Err(error), Reading::Stored) => {
            fields.complaints.warn(format_args!("{}: {error}", fields.at(name)));
            Some(StoredExpression::Broken)
        }
    }
}

fn names(fields: &Fields<'_>, name: &str) -> Vec<NameEntry> {
    let mut entries = Vec::new();
    for (path, text) in fields.texts(name).unwrap_or_default() {
        match NameEntry::parse(text) {
            Ok(entry) => entries.push(entry),
            Err(error) => fields.complaints.error(&path, error),
        }
    }
    entries
}

fn db_roles(fields: &Fields<'_>, in_deny: bool) -> Vec<Template> {
    let mut roles = Vec::new();
    for (path, text) in fields.texts("db_roles").unwrap_or_default() {
        if text == "*" && !in_deny {
            fields.complaints.error(&path, "`*` stands in deny only");
        }
        match Template::parse(text) {
            Ok(template) => roles.push(template),
            Err(error) => fields.complaints.error(&path, error),
        }
    }
    roles
}

fn commands(fields: &Fields<'_>) -> Option<Vec<Entry>> {
    let mut commands = Vec::new();
    for (path, text) in fields.texts("db_commands")? {
        match (Entry::check(text), fields.complaints.reading) {
            (Ok(()), _) => {}
            (Err(error @ EntryError::UnknownClass), Reading::Write) => {
                let class = text.trim_start_matches('@').to_ascii_lowercase();
                fields.complaints.unknown(&path, error.to_string(), nearest(&class, Entry::classes().iter()));
            }
            // Of a newer version, perhaps; here it matches nothing.
            (Err(error @ EntryError::UnknownClass), Reading::Stored) => {
                fields.complaints.warn(format_args!("{path}: {error}"));
            }
            (Err(error), _) => fields.complaints.error(&path, error),
        }
        commands.push(Entry::new(text));
    }
    Some(commands)
}

fn keys(fields: &Fields<'_>) -> Option<Vec<KeyGlob>> {
    let mut globs = Vec::new();
    for (path, text) in fields.texts("db_keys")? {
        match KeyGlob::parse(text) {
            Ok(glob) => globs.push(glob),
            Err(error) => fields.complaints.error(&path, error),
        }
    }
    Some(globs)
}

fn rules(fields: &Fields<'_>) -> Vec<Rule> {
    let read = |fields: Fields<'_>| {
        fields.allow_only(&["resources", "verbs", "where", "actions"], &[]);
        fields.texts("actions");
        let words = |name: &str| {
            let words: Vec<String> =
                fields.texts(name).unwrap_or_default().into_iter().map(|(_, word)| word.to_owned()).collect();
            if words.is_empty() {
                fields.error(name, "a rule needs at least one");
            }
            words
        };
        let (resources, verbs) = (words("resources"), words("verbs"));
        let source = fields.text("where").filter(|source| !source.is_empty());
        if let Some(source) = source {
            predicate(&fields, "where", source);
        }
        // A `where` of the wrong type is refused when written; one from storage still limits.
        Rule {
            resources,
            verbs,
            limited: source.is_some() || !matches!(fields.value("where"), None | Some(Value::String(_))),
        }
    };
    fields.maps("rules").into_iter().map(read).collect()
}

fn options(fields: &Fields<'_>) -> RoleOptions {
    fields.allow_only(OPTIONS, OPTIONS_KEPT);
    let recording = fields.map("record_session");
    recording.allow_only(&["default", "db"], &["ssh", "desktop"]);
    let recorded = recording.choice("db", RECORDING).flatten();
    let recorded_default = recording.choice("default", RECORDING).flatten();
    let audit = fields.map("db_audit");
    audit.allow_only(&["statements", "parameters"], &[]);
    let (statements, parameters) = (audit.choice("statements", STATEMENTS), audit.choice("parameters", PARAMETERS));
    let audit = (statements.is_some() || parameters.is_some()).then(|| StatementAudit {
        statements: statements.unwrap_or(AuditedStatements::All),
        parameters: parameters.unwrap_or(AuditedParameters::Full),
    });
    let mode = fields.choice("create_db_user_mode", CREATE_DB_USER).flatten();
    let old_form = fields.flag("create_db_user");
    let create_db_user_mode =
        mode.or(old_form.map(|on| if on { CreateDbUserMode::Keep } else { CreateDbUserMode::Off }));
    if create_db_user_mode.is_some_and(|mode| mode > CreateDbUserMode::Off) {
        fields
            .complaints
            .warn("options.create_db_user_mode is kept; automatic provisioning is not served yet, db_users decides");
    }
    fields.count("max_sessions");
    fields.choice("request_access", REQUEST_ACCESS);
    fields.text("request_prompt");
    let duration = |name| fields.duration(name).filter(|duration| !duration.is_zero());
    RoleOptions {
        max_session_ttl: duration("max_session_ttl"),
        client_idle_timeout: duration("client_idle_timeout"),
        disconnect_expired_cert: fields.flag("disconnect_expired_cert").unwrap_or(false),
        require_session_mfa: fields.choice("require_session_mfa", MFA).unwrap_or_default(),
        mfa_verification_interval: duration("mfa_verification_interval"),
        device_trust_mode: fields.choice("device_trust_mode", DEVICE_TRUST).unwrap_or_default(),
        max_connections: fields.count("max_connections").unwrap_or(0),
        record_session: recorded.or(recorded_default),
        create_db_user_mode,
        lock: fields.choice("lock", LOCK).flatten(),
        pin_source_ip: fields.flag("pin_source_ip").unwrap_or(false),
        enforce_db_names: fields.flag("enforce_db_names").unwrap_or(false),
        audit,
    }
}
