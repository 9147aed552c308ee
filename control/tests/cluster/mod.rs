//! A cluster in a temporary directory, people with keys, and a memory of what was audited.
#![allow(dead_code, unreachable_pub, missing_docs)] // Each test program uses its part.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use ringgate_control::{Actor, AuditSink, Authority, IssuedCert, Options, RouteRequest};
use ringgate_policy::ClusterSettings;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

#[derive(Default)]
pub struct Recorder(Mutex<Vec<(String, String, serde_json::Value)>>);

impl AuditSink for Recorder {
    fn record(&self, event: &str, code: &str, members: &str) {
        let members = serde_json::from_str(&format!("{{{members}}}")).expect("members are JSON");
        self.0.lock().unwrap().push((event.into(), code.into(), members));
    }
}

impl Recorder {
    /// Events of one name: code and members.
    pub fn of(&self, event: &str) -> Vec<(String, serde_json::Value)> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|(e, ..)| e == event).map(|(_, code, members)| (code.clone(), members.clone())).collect()
    }
}

pub struct Cluster {
    pub authority: Authority,
    pub audit: Arc<Recorder>,
    pub dir: TempDir,
}

pub fn options(dir: &Path, audit: Arc<dyn AuditSink>) -> Options {
    Options {
        data_dir: dir.join("data"),
        cluster_name: "gw".into(),
        user_cert_ttl: Duration::from_secs(12 * 3600),
        db_cert_ttl: Duration::from_secs(3600),
        static_databases: Vec::new(),
        cluster: ClusterSettings::default(),
        audit,
    }
}

impl Cluster {
    pub fn new() -> Cluster {
        let dir = TempDir::new().unwrap();
        let audit = Arc::new(Recorder::default());
        let authority = Authority::open(options(dir.path(), audit.clone())).unwrap();
        Cluster { authority, audit, dir }
    }

    pub fn apply(&self, yaml: &str) {
        self.authority.apply(&Actor::System, yaml, true).unwrap();
    }

    pub fn login(&self, user: &str) -> Person {
        let key = KeyPair::generate().unwrap();
        let cert = self.authority.issue_login(user, &csr(&key), None).unwrap();
        Person { login: der(&cert.cert_pem).to_vec(), cert, key }
    }

    /// An actor with the rights of a stored user.
    pub fn actor(&self, user: &str) -> Actor {
        Actor::User(Box::new(self.authority.verify_login(&self.login(user).login).unwrap()))
    }
}

pub struct Person {
    pub key: KeyPair,
    pub cert: IssuedCert,
    pub login: Vec<u8>,
}

impl Person {
    pub fn asks(&self, service: &str) -> RouteRequest {
        RouteRequest {
            login_cert_der: self.login.clone(),
            csr_der: csr(&self.key),
            service: service.into(),
            db_user: None,
            db_name: None,
            ttl: None,
        }
    }

    pub fn asks_as(&self, service: &str, db_user: &str, db_name: &str) -> RouteRequest {
        RouteRequest { db_user: Some(db_user.into()), db_name: Some(db_name.into()), ..self.asks(service) }
    }
}

pub fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

pub fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

pub fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64
}

/// Two databases; alice may reach the first with one user, bob both with any, carol nothing.
pub const PEOPLE: &str = r#"
kind: role
version: v8
metadata: { name: developer }
spec:
  allow: { db_labels: { env: staging }, db_users: [app], db_names: [orders] }
---
kind: role
version: v8
metadata: { name: short }
spec:
  options: { max_session_ttl: 10m }
  allow: {}
---
kind: user
version: v2
metadata: { name: alice }
spec: { roles: [developer], traits: { db_users: [alice] } }
---
kind: user
version: v2
metadata: { name: bob }
spec: { roles: [access], traits: { db_users: ["*"], db_names: ["*"] } }
---
kind: user
version: v2
metadata: { name: carol }
spec: { roles: [] }
---
kind: user
version: v2
metadata: { name: dora }
spec: { roles: [access, short, editor], traits: { db_users: [one, two], db_names: [orders, stock] } }
---
kind: db
version: v3
metadata: { name: orders, labels: { env: staging }, description: Orders }
spec: { protocol: postgres, uri: "127.0.0.1:5432" }
---
kind: db
version: v3
metadata: { name: orders-prod, labels: { env: production } }
spec: { protocol: postgres, uri: "127.0.0.1:5433" }
"#;
