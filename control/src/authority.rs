//! The authority: one handle to certificate authorities, resources and the published snapshot.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringgate_policy::{ClusterSettings, DatabaseDocument, Document, Kind, Publisher, Snapshot, Source};
use rustls_pki_types::CertificateDer;

use crate::actor::AuditSink;
use crate::ca::{CertificateAuthority, to_pem};
use crate::store::{Store, StoredAuthority, Write};
use crate::{CaKind, ControlError};

/// What an authority is opened with.
pub struct Options {
    /// Where the store is; made (0700) when missing. One server at a time.
    pub data_dir: PathBuf,
    /// Name of the cluster, fixed at the first start; 1 to 63 characters of a host name.
    pub cluster_name: String,
    /// Life of a login certificate when none is asked for.
    pub user_cert_ttl: Duration,
    /// Life of a route certificate when none is asked for.
    pub db_cert_ttl: Duration,
    /// Databases of the configuration file. They win over stored ones of the same name and cannot be changed.
    pub static_databases: Vec<DatabaseDocument>,
    /// Cluster values that combine with the roles' options.
    pub cluster: ClusterSettings,
    /// Where changes and certificates are recorded.
    pub audit: Arc<dyn AuditSink>,
}

/// The authority of one cluster. Cheap to clone; every method may be called from any thread and blocks only for
/// the store.
#[derive(Clone)]
pub struct Authority {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) cluster_name: String,
    authorities: BTreeMap<CaKind, CertificateAuthority>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) user_cert_ttl: Duration,
    pub(crate) db_cert_ttl: Duration,
    state: Mutex<State>,
}

/// What changes, behind one lock: changes are written, compiled and published one at a time.
pub(crate) struct State {
    pub(crate) store: Store,
    /// As stored, each with its revision.
    pub(crate) documents: BTreeMap<(Kind, String), Document>,
    pub(crate) static_databases: BTreeMap<String, DatabaseDocument>,
    pub(crate) cluster: ClusterSettings,
    /// Of the last stored change.
    pub(crate) version: u64,
    /// Of the published snapshot: also counts changes of the configuration file.
    pub(crate) published: u64,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.inner.cluster_name).finish_non_exhaustive()
    }
}

impl Authority {
    /// Opens the authority. The first start founds the cluster: four authorities and the preset roles.
    /// Fails when another server runs on the directory, the cluster has another name, or a stored document no
    /// longer compiles.
    pub fn open(options: Options) -> Result<Authority, ControlError> {
        let mut store = Store::open(&options.data_dir)?;
        match store.cluster_name()? {
            None => found(&mut store, &options.cluster_name)?,
            Some(name) if name != options.cluster_name => {
                return Err(ControlError::DataDirectory {
                    what: format!(
                        "it belongs to cluster {name:?}, not {:?}; the name is fixed at the first start",
                        options.cluster_name
                    ),
                });
            }
            Some(_) => {}
        }
        let authorities = load_authorities(&store)?;
        let documents = load_documents(&store)?;
        let version = store.version()?;
        let mut state = State {
            store,
            documents,
            static_databases: by_name(options.static_databases),
            cluster: options.cluster,
            version,
            published: version,
        };
        let snapshot = state.compile(&state.documents, version)?;
        let publisher = Arc::new(Publisher::new(snapshot));
        state.published = version;
        let authority = Authority {
            inner: Arc::new(Inner {
                cluster_name: options.cluster_name,
                authorities,
                publisher,
                audit: options.audit,
                user_cert_ttl: options.user_cert_ttl,
                db_cert_ttl: options.db_cert_ttl,
                state: Mutex::new(state),
            }),
        };
        authority.remove_expired()?;
        Ok(authority)
    }

    /// Name of the cluster.
    pub fn cluster_name(&self) -> &str {
        &self.inner.cluster_name
    }

    /// What an agent or client pins: `sha256:` and the hex hash of the `host` authority's public key (SPKI).
    pub fn ca_pin(&self) -> String {
        self.ca(CaKind::Host).map_or_else(|_| String::new(), CertificateAuthority::pin)
    }

    /// Where workers read the snapshot from.
    pub fn publisher(&self) -> Arc<Publisher> {
        self.inner.publisher.clone()
    }

    /// The certificates of one authority.
    pub fn trust(&self, ca: CaKind) -> Vec<CertificateDer<'static>> {
        self.ca(ca).map_or_else(|_| Vec::new(), |ca| vec![ca.certificate().clone()])
    }

    /// The certificates of one authority, PEM.
    pub fn trust_pem(&self, ca: CaKind) -> String {
        to_pem(&self.trust(ca))
    }

    /// When each authority's certificate ends, seconds since 1970.
    pub fn ca_expiries(&self) -> Vec<(CaKind, i64)> {
        self.inner.authorities.iter().map(|(kind, ca)| (*kind, ca.not_after_unix())).collect()
    }

    /// Whether a change could be stored now.
    pub fn check_store(&self) -> Result<(), ControlError> {
        self.state().store.check()
    }

    pub(crate) fn audit(&self) -> &dyn AuditSink {
        &*self.inner.audit
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn ca(&self, kind: CaKind) -> Result<&CertificateAuthority, ControlError> {
        self.inner
            .authorities
            .get(&kind)
            .ok_or_else(|| ControlError::Certificate(format!("the {kind} authority is missing")))
    }

    /// A panic while the lock was held leaves state as it was: it is only changed after the store's commit.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Compiles `documents` with the static databases, which win.
    pub(crate) fn compile(
        &self,
        documents: &BTreeMap<(Kind, String), Document>,
        version: u64,
    ) -> Result<Snapshot, ControlError> {
        let mut source = Source { roles: Vec::new(), databases: Vec::new(), cluster: self.cluster.clone() };
        for document in documents.values() {
            match document {
                Document::Role(role) => source.roles.push(role.clone()),
                Document::Database(db) if !self.static_databases.contains_key(db.name()) => {
                    source.databases.push(db.clone());
                }
                _ => {}
            }
        }
        source.databases.extend(self.static_databases.values().cloned());
        Snapshot::compile(&source, version).map_err(|errors| ControlError::Invalid {
            what: "the policy".into(),
            problems: errors.to_string().lines().map(str::to_owned).collect(),
        })
    }

    /// Stores a change that makes `documents` the new whole, and publishes it.
    pub(crate) fn commit(
        &mut self,
        publisher: &Publisher,
        writes: &[Write],
        documents: BTreeMap<(Kind, String), Document>,
    ) -> Result<(), ControlError> {
        let version = self.version.saturating_add(1);
        let published = self.published.saturating_add(1);
        let snapshot = self.compile(&documents, published)?;
        self.store.commit(writes, version, &now_text())?;
        self.version = version;
        self.documents = documents;
        self.published = published;
        publisher.publish(snapshot);
        Ok(())
    }
}

pub(crate) fn by_name(databases: Vec<DatabaseDocument>) -> BTreeMap<String, DatabaseDocument> {
    databases.into_iter().map(|db| (db.name().to_owned(), db)).collect()
}

/// Wall clock, seconds since 1970.
pub(crate) fn now_unix() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Wall clock, RFC 3339 UTC.
pub(crate) fn now_text() -> String {
    jiff::Timestamp::now().to_string()
}

fn found(store: &mut Store, cluster: &str) -> Result<(), ControlError> {
    let is_label = |l: &str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if cluster.len() > 63 || !cluster.split('.').all(is_label) {
        return Err(ControlError::Request {
            what: format!("{cluster:?} is no cluster name: up to 63 letters, digits, dots, hyphens and underscores"),
        });
    }
    let now = now_unix();
    let authorities = CaKind::ALL
        .into_iter()
        .map(|kind| {
            let (ca, key) = CertificateAuthority::generate(kind, cluster, now)?;
            Ok(StoredAuthority { kind, certificate: ca.certificate().to_vec(), key })
        })
        .collect::<Result<Vec<_>, ControlError>>()?;
    let presets: Vec<Write> =
        ringgate_policy::preset_roles().into_iter().map(|role| put(&Document::Role(role))).collect();
    store.found(cluster, &authorities, &presets, &now_text())
}

/// The write that stores `document`, its revision left out: that is a column.
pub(crate) fn put(document: &Document) -> Write {
    let mut bare = document.clone();
    bare.set_revision(None);
    Write::Put { kind: document.kind().as_str(), name: document.name().into(), document: bare.to_json().to_string() }
}

fn load_authorities(store: &Store) -> Result<BTreeMap<CaKind, CertificateAuthority>, ControlError> {
    let mut authorities = BTreeMap::new();
    for stored in store.authorities()? {
        let ca = CertificateAuthority::load(stored.kind, stored.certificate, &stored.key)?;
        authorities.insert(stored.kind, ca);
    }
    match CaKind::ALL.into_iter().find(|kind| !authorities.contains_key(kind)) {
        Some(kind) => Err(ControlError::DataDirectory { what: format!("state.db has no {kind} authority") }),
        None => Ok(authorities),
    }
}

fn load_documents(store: &Store) -> Result<BTreeMap<(Kind, String), Document>, ControlError> {
    let mut documents = BTreeMap::new();
    for stored in store.resources()? {
        let place = format!("stored {}/{}", stored.kind, stored.name);
        let invalid = |problem: String| ControlError::Invalid { what: place.clone(), problems: vec![problem] };
        let value = serde_json::from_str(&stored.document).map_err(|e| invalid(e.to_string()))?;
        let (mut document, warnings) = Document::from_stored(value).map_err(|e| invalid(e.to_string()))?;
        for warning in warnings {
            tracing::warn!(%warning, "stored document");
        }
        document.set_revision(Some(stored.revision.to_string()));
        documents.insert((document.kind(), document.name().to_owned()), document);
    }
    Ok(documents)
}
