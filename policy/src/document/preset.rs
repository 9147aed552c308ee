//! The roles that a new cluster has (access-model 2.1).

use serde_json::json;

use super::{Document, RoleDocument};

/// `access` (every database, users and names from the traits), `editor` (every kind of resource) and `auditor`
/// (sessions and events, to read).
pub fn preset_roles() -> Vec<RoleDocument> {
    let access = json!({
        "db_labels": { "*": "*" },
        "db_users": ["{{internal.db_users}}"],
        "db_names": ["{{internal.db_names}}"],
        "db_roles": ["{{internal.db_roles}}"],
    });
    let editor = json!({ "rules": [{ "resources": ["*"], "verbs": ["*"] }] });
    let auditor = json!({ "rules": [{ "resources": ["session", "event"], "verbs": ["list", "read"] }] });
    let presets = [
        ("access", "Reaches every database as the users and names of the holder's traits", access),
        ("editor", "Manages every kind of resource", editor),
        ("auditor", "Reads sessions and events", auditor),
    ];
    let documents = presets.into_iter().map(|(name, description, allow)| {
        let spec = json!({ "allow": allow, "deny": {}, "options": {} });
        json!({
            "kind": "role",
            "version": "v8",
            "metadata": { "name": name, "description": description },
            "spec": spec,
        })
    });
    documents
        .filter_map(|value| match Document::from_json(value) {
            Ok(Document::Role(role)) => Some(role),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_preset_reads_strictly() {
        let names: Vec<_> = super::preset_roles().iter().map(|role| role.name().to_owned()).collect();
        assert_eq!(names, ["access", "editor", "auditor"]);
    }
}
