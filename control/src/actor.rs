//! Who asks, and where what they did is written.

use serde_json::{Map, Value};

use crate::identity::CertIdentity;

/// Where the authority reports what it did. The server gives the audit log.
pub trait AuditSink: Send + Sync {
    /// Records one event: name and code of the catalogue, and its fields as JSON members without the outer
    /// braces (`"a":1,"b":"x"`).
    fn record(&self, event: &str, code: &str, members: &str);
}

/// Who asks for a change.
#[derive(Clone, Debug)]
pub enum Actor {
    /// The server itself, e.g. while it founds a cluster.
    System,
    /// Whoever runs the server, or root, over the admin socket: every right, named by uid in the audit log.
    Operator {
        /// Uid of the peer.
        uid: u32,
    },
    /// A user by a verified login certificate: the rights of its roles.
    User(Box<CertIdentity>),
}

impl Actor {
    /// The user name in records; `operator` and `system` are no user names, their records say so in `actor`.
    pub fn name(&self) -> &str {
        match self {
            Actor::System => "system",
            Actor::Operator { .. } => "operator",
            Actor::User(identity) => &identity.user,
        }
    }

    /// Adds the members that name this actor.
    pub(crate) fn write_to(&self, members: &mut Map<String, Value>) {
        match self {
            Actor::System => {
                members.insert("actor".into(), "system".into());
            }
            Actor::Operator { uid } => {
                members.insert("actor".into(), "operator".into());
                members.insert("uid".into(), (*uid).into());
            }
            Actor::User(identity) => {
                members.insert("actor".into(), "user".into());
                members.insert("user".into(), identity.user.clone().into());
                members.insert("user_kind".into(), identity.user_kind.as_str().into());
                members.insert("cert_serial".into(), identity.serial_hex.clone().into());
            }
        }
    }
}

/// Records an event by `actor` with `fields`, an object.
pub(crate) fn record(sink: &dyn AuditSink, event: &str, code: &str, actor: &Actor, fields: Value) {
    let mut members = Map::new();
    actor.write_to(&mut members);
    if let Value::Object(fields) = fields {
        members.extend(fields);
    }
    let text = Value::Object(members).to_string();
    let inside = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or_default();
    sink.record(event, code, inside);
}
