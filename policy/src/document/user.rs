//! The `user` document (access-model 2.1).

use std::collections::BTreeMap;

use super::document;
use super::envelope::{Metadata, version};
use super::fields::{Fields, texts_of};

const SPEC: &[&str] = &["roles", "traits"];
const SPEC_KEPT: &[&str] = &[
    "created_by",
    "expires",
    "status",
    "local_auth",
    "oidc_identities",
    "saml_identities",
    "github_identities",
    "trusted_device_ids",
];

/// What a `user` document says.
pub(crate) struct UserSpec {
    pub(crate) metadata: Metadata,
    roles: Vec<String>,
    traits: BTreeMap<String, Vec<String>>,
}

document! {
    /// A person or a service: kind `user`, version v1 or v2.
    UserDocument, UserSpec
}

impl UserDocument {
    /// Names of the user's roles, which may not exist any more; no name twice.
    pub fn roles(&self) -> &[String] {
        &self.spec().roles
    }

    /// The user's traits.
    pub fn traits(&self) -> &BTreeMap<String, Vec<String>> {
        &self.spec().traits
    }
}

pub(super) fn read(root: &Fields<'_>) -> Option<UserSpec> {
    let metadata = Metadata::read(root);
    version(root, &[("v2", 2), ("v1", 1)]);
    let spec = root.map("spec");
    spec.allow_only(SPEC, SPEC_KEPT);
    let mut roles: Vec<String> = Vec::new();
    for (path, role) in spec.texts("roles").unwrap_or_default() {
        if role.is_empty() {
            spec.complaints.error(&path, "a role name is not empty");
        } else if !roles.iter().any(|known| known == role) {
            roles.push(role.to_owned());
        }
    }
    let fields = spec.map("traits");
    let mut traits = BTreeMap::new();
    for (name, value) in fields.entries().filter(|(_, value)| !value.is_null()) {
        let values = texts_of(&fields.at(name), value, fields.complaints);
        traits.insert(name.clone(), values.into_iter().map(|(_, text)| text.to_owned()).collect());
    }
    Some(UserSpec { metadata, roles, traits })
}
