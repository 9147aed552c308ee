//! The authority: who may have which certificate, which roles, users and databases exist, and how people and
//! programs tell it so.
//!
//! | Module | Holds |
//! |---|---|
//! | `authority` | [`Authority`], the handle to all of it; opens or founds a cluster |
//! | `ca` | the four certificate authorities and their one use each |
//! | [`identity`] | what is inside a client certificate, and the only reader of it |
//! | `issue` | certificates for users: logins and routes |
//! | `servers` | certificates for listeners, backend connections and database servers |
//! | `resources` | create, update, remove roles, users and databases; publish the snapshot |
//! | `store` | SQLite, its schema and migrations |
//! | [`secret`] | fetching a secret from where its reference points |
//! | [`serve`] | the admin socket, the diagnostic listener, signals and drain |
//! | [`client`] | the command line's calls to the admin socket |
//!
//! Architecture invariants: this is the only crate that names tokio. Nothing here is on a worker's path: workers
//! read the snapshot that [`Authority::publisher`] holds. A private key of an authority leaves this crate never.
#![forbid(unsafe_code)]

mod actor;
mod api;
mod authority;
mod ca;
pub mod client;
mod diag;
mod error;
mod hex;
pub mod identity;
mod issue;
mod listen;
mod resources;
pub mod secret;
pub mod serve;
mod servers;
mod store;

pub use actor::{Actor, AuditSink};
pub use authority::{Authority, Options};
pub use ca::{CLOCK_SKEW, CaKind, CertUse};
pub use error::ControlError;
pub use issue::{DatabaseRow, IssuedCert, IssuedRoute, LOGIN_TTL_MAX, RouteRequest};
pub use resources::{Action, Applied, Removed};
pub use servers::{BACKEND_TTL_MAX, LISTENER_TTL, SERVER_TTL_MAX, ServerFiles};
