//! Role options and how several roles' combine (access-model 4.3).

use std::time::Duration;

/// The longest session, and what a role without `max_session_ttl` stands for (access-model 2.4).
pub const SESSION_TTL_MAX: Duration = Duration::from_secs(30 * 3600);

/// What happens to live sessions when roles change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnAccessChange {
    /// They keep the decision they were opened with.
    #[default]
    Keep,
    /// They are authorised again, and ended when they lost access.
    End,
}

/// Demand for a second factor per session; stricter is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum SessionMfa {
    /// None.
    #[default]
    No,
    /// Any second factor.
    Yes,
    /// A hardware key.
    HardwareKey,
    /// A hardware key with its PIN.
    HardwareKeyPin,
    /// A hardware key, touched.
    HardwareKeyTouch,
    /// A hardware key, touched, with its PIN.
    HardwareKeyTouchAndPin,
}

/// Demand for an enrolled device; stricter is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum DeviceTrust {
    /// None.
    #[default]
    Off,
    /// Used when present.
    Optional,
    /// Demanded; a caller that knows a bot passes `device_trusted: true` for it.
    RequiredForHumans,
    /// Demanded.
    Required,
}

/// What a stale lock feed means; stricter is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LockMode {
    /// The last known locks are used.
    #[default]
    BestEffort,
    /// Sessions are refused and closed.
    Strict,
}

/// Session recording; stricter is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SessionRecording {
    /// Not recorded.
    Off,
    /// Recorded as far as possible.
    BestEffort,
    /// A session that cannot be recorded ends.
    Strict,
}

/// Provisioning of database users; the highest of the matching roles counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CreateDbUserMode {
    /// No provisioning.
    Off,
    /// Provisioned, disabled at session end.
    Keep,
    /// Provisioned, dropped at session end where possible.
    BestEffortDrop,
}

/// Which statements the audit keeps; fuller is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuditedStatements {
    /// None.
    None,
    /// Those that define or change, and those that cannot be classed.
    DdlDml,
    /// All.
    All,
}

/// What the audit keeps of parameters; fuller is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuditedParameters {
    /// Nothing.
    None,
    /// Their types.
    Types,
    /// Their values.
    Full,
}

/// The role option `db_audit`; a part that it leaves out does not narrow the cluster's setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatementAudit {
    /// Statements.
    pub statements: AuditedStatements,
    /// Parameters.
    pub parameters: AuditedParameters,
}

/// Cluster values that roles tighten.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterSettings {
    /// Idle time after which a session ends; none when absent.
    pub client_idle_timeout: Option<Duration>,
    /// Whether sessions end when their certificate expires.
    pub disconnect_expired_cert: bool,
    /// What happens to live sessions when roles change.
    pub on_access_change: OnAccessChange,
    /// Second factor demanded of everybody.
    pub require_session_mfa: SessionMfa,
    /// What a stale lock feed means.
    pub lock_mode: LockMode,
}

/// The options of a session, combined over all roles of the principal and the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOptions {
    /// Idle time after which the session ends: the shortest of roles and cluster; none when absent.
    pub client_idle_timeout: Option<Duration>,
    /// Whether the session ends when its certificate expires.
    pub disconnect_expired_cert: bool,
    /// Most concurrent sessions of the user: the lowest; 0 is unlimited.
    pub max_connections: u32,
    /// Whether the certificate is refused from another address than it was issued to.
    pub pin_source_ip: bool,
    /// What the audit keeps, the fullest of the roles that say; `None` is the cluster's setting.
    pub audit: Option<StatementAudit>,
    /// The strictest recording.
    pub record_session: SessionRecording,
    /// The strictest lock mode.
    pub lock: LockMode,
    /// The strictest second factor of any role; whether it applies to a request is in its decision.
    pub require_session_mfa: SessionMfa,
    /// The strictest device demand of any role; whether it applies to a request is in its decision.
    pub device_trust_mode: DeviceTrust,
    /// How long a second factor counts: the shortest.
    pub mfa_verification_interval: Option<Duration>,
    /// Longest certificate: the shortest of the roles, at most [`SESSION_TTL_MAX`].
    pub max_session_ttl: Duration,
    /// Whether `db_names` is checked for MySQL and Redis too.
    pub enforce_db_names: bool,
}

/// The options of one role, as far as databases use them.
#[derive(Debug, Clone, Default)]
pub(crate) struct RoleOptions {
    pub(crate) max_session_ttl: Option<Duration>,
    pub(crate) client_idle_timeout: Option<Duration>,
    pub(crate) disconnect_expired_cert: bool,
    pub(crate) require_session_mfa: SessionMfa,
    pub(crate) mfa_verification_interval: Option<Duration>,
    pub(crate) device_trust_mode: DeviceTrust,
    pub(crate) max_connections: u32,
    pub(crate) record_session: Option<SessionRecording>,
    pub(crate) create_db_user_mode: Option<CreateDbUserMode>,
    pub(crate) lock: Option<LockMode>,
    pub(crate) pin_source_ip: bool,
    pub(crate) enforce_db_names: bool,
    pub(crate) audit: Option<StatementAudit>,
}

impl SessionOptions {
    /// Combines the roles' options with the cluster's; the order of the roles does not matter.
    pub(crate) fn merge<'r>(cluster: &ClusterSettings, roles: impl Iterator<Item = &'r RoleOptions> + Clone) -> Self {
        let any = |on: fn(&RoleOptions) -> bool| roles.clone().any(on);
        let shortest = |of: fn(&RoleOptions) -> Option<Duration>| roles.clone().filter_map(of).min();
        let idle = shortest(|role| role.client_idle_timeout).into_iter().chain(cluster.client_idle_timeout);
        let fullest = |one: StatementAudit, other: StatementAudit| StatementAudit {
            statements: one.statements.max(other.statements),
            parameters: one.parameters.max(other.parameters),
        };
        let strictest_mfa = roles.clone().map(|role| role.require_session_mfa).max().unwrap_or_default();
        Self {
            client_idle_timeout: idle.filter(|idle| !idle.is_zero()).min(),
            disconnect_expired_cert: cluster.disconnect_expired_cert || any(|role| role.disconnect_expired_cert),
            max_connections: roles.clone().map(|role| role.max_connections).filter(|n| *n > 0).min().unwrap_or(0),
            pin_source_ip: any(|role| role.pin_source_ip),
            audit: roles.clone().filter_map(|role| role.audit).reduce(fullest),
            record_session: roles
                .clone()
                .map(|role| role.record_session.unwrap_or(SessionRecording::BestEffort))
                .max()
                .unwrap_or(SessionRecording::BestEffort),
            lock: roles.clone().filter_map(|role| role.lock).max().unwrap_or(cluster.lock_mode),
            require_session_mfa: strictest_mfa.max(cluster.require_session_mfa),
            device_trust_mode: roles.clone().map(|role| role.device_trust_mode).max().unwrap_or_default(),
            mfa_verification_interval: shortest(|role| role.mfa_verification_interval),
            max_session_ttl: shortest(|role| role.max_session_ttl).unwrap_or(SESSION_TTL_MAX).min(SESSION_TTL_MAX),
            enforce_db_names: any(|role| role.enforce_db_names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combines_each_option_by_its_own_rule() {
        let hours = |n: u64| Some(Duration::from_secs(n * 3600));
        let plain = RoleOptions::default();
        let tight = RoleOptions {
            max_session_ttl: hours(8),
            client_idle_timeout: hours(2),
            disconnect_expired_cert: true,
            require_session_mfa: SessionMfa::HardwareKey,
            device_trust_mode: DeviceTrust::Required,
            max_connections: 5,
            record_session: Some(SessionRecording::Strict),
            lock: Some(LockMode::Strict),
            pin_source_ip: true,
            audit: Some(StatementAudit { statements: AuditedStatements::None, parameters: AuditedParameters::Full }),
            ..RoleOptions::default()
        };
        let loose = RoleOptions {
            max_session_ttl: hours(24),
            client_idle_timeout: hours(4),
            max_connections: 9,
            record_session: Some(SessionRecording::Off),
            lock: Some(LockMode::BestEffort),
            audit: Some(StatementAudit { statements: AuditedStatements::DdlDml, parameters: AuditedParameters::None }),
            ..RoleOptions::default()
        };
        let cluster = ClusterSettings { client_idle_timeout: hours(1), ..ClusterSettings::default() };
        let merged = SessionOptions::merge(&cluster, [&plain, &tight, &loose].into_iter());
        assert_eq!(merged, SessionOptions::merge(&cluster, [&loose, &plain, &tight].into_iter()));
        assert_eq!(merged.max_session_ttl, Duration::from_secs(8 * 3600));
        assert_eq!(merged.client_idle_timeout, hours(1));
        assert!(merged.disconnect_expired_cert && merged.pin_source_ip);
        assert_eq!(merged.max_connections, 5);
        assert_eq!(merged.record_session, SessionRecording::Strict);
        assert_eq!(merged.lock, LockMode::Strict);
        assert_eq!(merged.require_session_mfa, SessionMfa::HardwareKey);
        assert_eq!(merged.device_trust_mode, DeviceTrust::Required);
        let audit = merged.audit.unwrap();
        assert_eq!((audit.statements, audit.parameters), (AuditedStatements::DdlDml, AuditedParameters::Full));
    }

    #[test]
    fn stands_for_the_cluster_values_without_roles() {
        let cluster = ClusterSettings {
            client_idle_timeout: Some(Duration::ZERO),
            lock_mode: LockMode::Strict,
            ..ClusterSettings::default()
        };
        let merged = SessionOptions::merge(&cluster, std::iter::empty());
        assert_eq!(merged.client_idle_timeout, None);
        assert_eq!(merged.lock, LockMode::Strict);
        assert_eq!(merged.max_session_ttl, SESSION_TTL_MAX);
        assert_eq!(merged.record_session, SessionRecording::BestEffort);
    }
}
