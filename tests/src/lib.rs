//! Harness of the end-to-end tests: real PostgreSQL, MariaDB and Redis servers, the real binary, real clients, and peers that misbehave.
//!
//! | Variable | Effect |
//! |---|---|
//! | `RINGGATE_TEST_POSTGRES_URL` | tests that need no say in the server's own settings use this superuser URL |
//! | `RINGGATE_TEST_REDIS_URL` | the same for Redis; the tests empty its database, so run them with `--test-threads=1` |
//! | `RINGGATE_TEST_BINARY` | the `ringgate` to test; without it `cargo build -p ringgate` runs once per test process |
//! | `RINGGATE_TEST_PYTHON` | an interpreter with psycopg, asyncpg and redis-py; default: the one `tests/setup.sh` makes |

pub mod audit_log;
pub mod certificates;
pub mod chopper;
pub mod db_config;
pub mod gateway;
pub mod mysql;
pub mod places;
pub mod postgres;
pub mod process;
pub mod raw;
pub mod redis;
pub mod redis_cluster;
pub mod resp;
pub mod tls;
pub mod wait;
pub mod wire;

/// How the data plane does its socket work. Every end-to-end case runs on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `runtime.driver: io_uring`.
    IoUring,
    /// `runtime.driver: epoll`.
    Epoll,
}

impl Driver {
    /// The value of `runtime.driver`.
    pub fn name(self) -> &'static str {
        match self {
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        }
    }
}

/// Turns functions of a [`Driver`] into one test per driver.
#[macro_export]
macro_rules! on_both_drivers {
    ($($case:ident),+ $(,)?) => {
        mod on_io_uring {
            $(#[test] fn $case() { super::$case($crate::Driver::IoUring) })+
        }
        mod on_epoll {
            $(#[test] fn $case() { super::$case($crate::Driver::Epoll) })+
        }
    };
}
