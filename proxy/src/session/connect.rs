//! Connect: the database is reached, verified and signed in to with the gateway's own credential. Then the pump.

use std::rc::Rc;
use std::time::Duration;

use ringgate_policy::{AuditedParameters, AuditedStatements};
use ringgate_protocol::{Limits, Protocol, RefusalKind, SessionKey};

use super::authorize::Permitted;
use super::commands::Commands;
use super::link::Link;
use super::pump::Pump;
use super::rule::Rules;
use super::{Ended, Place, Session, cancel};
use crate::backend::prepare::PrepareError;
use crate::backend::{self, ConnectError, Endpoint};
use crate::metrics::{Reject, Served};
use crate::plane::SessionPlace;
use crate::settings::{ArgumentDetail, ParameterDetail};
use crate::worker::{Control, Core};

/// How often a session that is being connected looks whether the gateway shuts down.
const LOOK: Duration = Duration::from_millis(100);

/// Both sides are connected.
pub struct Connected<P: Protocol> {
    machine: P::Machine,
    backend: Link,
    rules: RulesParts,
    control: Rc<Control>,
    places: Vec<SessionPlace>,
}

struct RulesParts {
    commands: ringgate_policy::CommandSet,
    statements: AuditedStatements,
    parameters: ParameterDetail,
    cancel: cancel::Route,
    enforces_names: bool,
    told_id: Option<u32>,
    redis: Option<Box<Commands>>,
}

impl<P: Protocol> Session<Permitted<P>> {
    /// Connects to the database. The permit is consumed: there is no other way to a backend connection.
    pub(super) async fn connect(mut self) -> Result<Session<Connected<P>>, Box<Ended>> {
        let about = self.about();
        let permit = &self.state.permit;
        let database = permit.database().clone();
        let opening = &self.state.identified.secured.opening;
        let endpoint =
            Endpoint { port: self.client.stream.local_port().unwrap_or(P::PORT), tls: self.client.tls.is_some() };
        let connecting = backend::connect::<P>(&self.core, opening, permit, endpoint);
        let reached = unless_drained(&self.core, connecting).await;
        let (login, backend, route) = match reached {
            Ok(reached) => reached,
            Err(error) => {
                tracing::warn!(sid = %self.trail.sid, database = %database.name, err = %error, "database not reached");
                let mut ended = self.step(|p| p.identified.secured).refuse(
                    error.kind(),
                    Reject::Backend,
                    &error.to_string(),
                    &error.for_client(&database.name),
                    error.hint(),
                );
                if let Some(frame) = error.into_frame() {
                    ended.last_words = frame;
                    ended.afterword = None;
                }
                return Err(ended);
            }
        };
        let Some(key) = self.core.new_key() else {
            let message = "no cancel key could be made";
            let session = self.step(|p| p.identified.secured);
            return Err(session.refuse(RefusalKind::Internal, Reject::Limit, message, message, ""));
        };
        let control = Control::new(self.trail.sid, key, about, self.core.now_ms());
        self.core.enter(&control);
        self.place.entered = Some(control.clone());
        let settings = &self.core.plane.settings;
        let limits = self.limits();
        let redis = match self.listener.served {
            Served::Postgres | Served::Mysql => None,
            Served::Redis => Some(Commands::new(&self.core, &self.state.permit, self.argument_detail())),
        };
        let parameters = settings.parameters;
        Ok(self.step(|permitted| {
            let Permitted { identified, permit, places, .. } = permitted;
            Connected::new(
                identified.secured.opening,
                login,
                key,
                backend,
                permit,
                route,
                control,
                places,
                limits,
                parameters,
                redis,
            )
        }))
    }

    /// What is recorded of a command's arguments: the setting, narrowed by the roles' `db_audit`.
    fn argument_detail(&self) -> ArgumentDetail {
        let most = match self.state.permit.options().audit.map(|audit| audit.parameters) {
            Some(AuditedParameters::None) => ArgumentDetail::Names,
            Some(AuditedParameters::Types) => ArgumentDetail::Keys,
            Some(AuditedParameters::Full) | None => ArgumentDetail::Full,
        };
        self.core.plane.settings.arguments.min(most)
    }
}

/// What `reaching` comes to, or its end when the gateway begins to shut down: a session that has not begun has no
/// statement to wait for.
pub(super) async fn unless_drained<T>(
    core: &Core,
    reaching: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    let mut reaching = Box::pin(reaching);
    loop {
        if core.plane.is_draining() {
            return Err(PrepareError::Stopped.into());
        }
        if let Some(reached) = crate::net::within(LOOK, reaching.as_mut()).await {
            return reached;
        }
    }
}

impl<P: Protocol> Connected<P> {
    #[expect(clippy::too_many_arguments, reason = "the whole of what the pump needs, moved once")]
    fn new(
        opening: P::Opening,
        login: P::Login,
        key: SessionKey,
        backend: Link,
        permit: ringgate_policy::Permit,
        route: cancel::Route,
        control: Rc<Control>,
        places: Vec<SessionPlace>,
        limits: Limits,
        default_parameters: ParameterDetail,
        redis: Option<Box<Commands>>,
    ) -> Connected<P> {
        let audit = permit.options().audit;
        let parameters = audit.map(|a| match a.parameters {
            AuditedParameters::Full => ParameterDetail::Full,
            AuditedParameters::Types => ParameterDetail::Types,
            AuditedParameters::None => ParameterDetail::None,
        });
        let told_id = P::told_id(&opening);
        Connected {
            machine: P::machine(opening, login, key, limits),
            backend,
            rules: RulesParts {
                commands: permit.commands(),
                statements: audit.map_or(AuditedStatements::All, |a| a.statements),
                parameters: parameters.unwrap_or(default_parameters),
                cancel: route,
                enforces_names: permit.checks_names(),
                told_id,
                redis,
            },
            control,
            places,
        }
    }
}

/// A session in full flow: the pump, and what is given back after it.
pub struct Running<P: Protocol> {
    pump: Box<Pump<P::Machine>>,
    core: Rc<Core>,
    place: Place,
    _places: Vec<SessionPlace>,
}

impl<P: Protocol> Session<Connected<P>> {
    /// Puts both sides into the pump.
    pub(super) fn run(self) -> Running<P> {
        let Session { core, client, trail, place, state, .. } = self;
        let Connected { machine, backend, rules, control, places } = state;
        let mut with_rules = Rules::new(trail, rules.commands, rules.statements, rules.parameters, rules.cancel);
        with_rules.redis = rules.redis;
        (with_rules.enforces_names, with_rules.told_id) = (rules.enforces_names, rules.told_id);
        let pump = Box::new(Pump::new(machine, client, backend, with_rules, core.clone(), control));
        Running { pump, core, place, _places: places }
    }
}

impl<P: Protocol> Running<P> {
    /// Runs the session to its end.
    pub(super) async fn pump(mut self) -> Box<Ended> {
        let end = self.pump.run().await;
        let trail = Box::pin(self.pump.close(end)).await;
        Ended::pumped(self.core, trail, end, self.place)
    }
}
