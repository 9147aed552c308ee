//! What every command starts from: flags, home, profile, and the way to the server.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ringgate_control::client::{AdminClient, ClientError};
use ringgate_control::identity::CertIdentity;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::arguments::Global;
use super::failure::{Exit, Failure, file};
use super::output;
use crate::config::Config;
use crate::profile::Profile;

/// Flags and folders of one invocation.
pub(crate) struct Context {
    global: Global,
    /// The profile's folder.
    pub(crate) home: PathBuf,
}

/// A profile whose login certificate is valid.
pub(crate) struct Login {
    pub(crate) profile: Profile,
    /// The login certificate.
    pub(crate) cert_der: Vec<u8>,
    pub(crate) identity: CertIdentity,
}

impl Context {
    pub(crate) fn new(global: Global) -> Context {
        let home = global.home.clone().unwrap_or_else(default_home);
        // Files of other programs name ours by absolute path.
        let home = std::path::absolute(&home).unwrap_or(home);
        Context { global, home }
    }

    /// The same flags, for another thread.
    pub(crate) fn again(&self) -> Context {
        Context { global: self.global.clone(), home: self.home.clone() }
    }

    pub(crate) fn quiet(&self) -> bool {
        self.global.quiet
    }

    pub(crate) fn note(&self, text: &str) {
        output::note(self.global.quiet, text);
    }

    /// The file of `-c`.
    pub(crate) fn config_file(&self) -> Option<&Path> {
        self.global.config.as_deref()
    }

    /// The profile, signed in or not.
    pub(crate) fn profile(&self) -> Result<Profile, Failure> {
        Profile::load(&self.home).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Failure::new(Exit::NotLoggedIn, "not logged in")
                .why(format!("there is no profile in {}", self.home.display()))
                .attempt("ringgate --home DATA_DIR/home ... with the data directory of a quickstart"),
            _ => file("read", &self.home.join("profile.json"), &e),
        })
    }

    /// The profile with a login certificate that is valid now.
    pub(crate) fn login(&self) -> Result<Login, Failure> {
        let profile = self.profile()?;
        let cert_der = certificate(&profile.login_cert).ok_or_else(|| {
            Failure::new(Exit::NotLoggedIn, "not logged in")
                .why(format!("there is no certificate in {}", profile.login_cert.display()))
                .attempt("start the server of this profile again, it renews the login")
        })?;
        let identity = CertIdentity::from_certificate(&cert_der)
            .map_err(|e| Failure::new(Exit::NotLoggedIn, "the login certificate cannot be used").why(e))?;
        if !identity.is_valid_at(unix_now()) {
            return Err(Failure::new(Exit::NotLoggedIn, "the login certificate has expired")
                .why(format!("it was valid until {}", time(identity.not_after_unix)))
                .attempt("start the server of this profile again, it renews the login"));
        }
        Ok(Login { profile, cert_der, identity })
    }

    /// The admin API: by `-c` as the operator of this machine, else by the profile as its user.
    pub(crate) fn admin(&self) -> Result<AdminClient, Failure> {
        if let Some(path) = self.config_file() {
            let config = Config::load(path).map_err(|e| super::config::failure(e, Exit::Failed))?;
            return Ok(AdminClient::new(&config.listeners.admin_socket));
        }
        let login = self.login()?;
        Ok(AdminClient::new(&login.profile.admin_socket).with_login(&login.cert_der))
    }

    /// Asks before something is destroyed. Where nobody can be asked, the command was meant.
    pub(crate) fn confirm(&self, question: &str) -> Result<(), Failure> {
        if self.global.yes || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Ok(());
        }
        if self.global.no_input {
            return Err(Failure::new(Exit::Usage, "an answer is needed").why(question).attempt("add --yes"));
        }
        output::note(false, &format!("{question} [y/N]"));
        let mut answer = String::new();
        match std::io::stdin().read_line(&mut answer) {
            Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
            Ok(_) => Err(Failure::new(Exit::Failed, "nothing was done").why("the answer was not yes")),
            Err(e) => Err(Failure::new(Exit::Failed, "cannot read the answer").why(e)),
        }
    }
}

/// What the server refused, in our words.
pub(crate) fn refused(error: ClientError) -> Failure {
    let exit = match error.code {
        2 => Exit::Usage,
        3 => Exit::NotLoggedIn,
        4 => Exit::Denied,
        5 => Exit::NotFound,
        6 => Exit::Conflict,
        8 => Exit::Unreachable,
        9 => Exit::TimedOut,
        10 => Exit::Unverified,
        11 => Exit::Partly,
        78 => Exit::Refused,
        _ => Exit::Failed,
    };
    let mut failure = Failure::new(exit, error.what);
    if !error.problems.is_empty() {
        failure = failure.why(error.problems.join("\n"));
    } else if let Some(why) = error.why {
        failure = failure.why(why);
    }
    match error.hint {
        Some(hint) => failure.attempt(hint),
        None => failure,
    }
}

/// The first certificate of a PEM file, DER.
pub(crate) fn certificate(path: &Path) -> Option<Vec<u8>> {
    let pem = std::fs::read(path).ok()?;
    CertificateDer::from_pem_slice(&pem).ok().map(|der| der.to_vec())
}

pub(crate) fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// RFC 3339 UTC.
pub(crate) fn time(unix: i64) -> String {
    jiff::Timestamp::from_second(unix).map_or_else(|_| unix.to_string(), |t| t.to_string())
}

fn default_home() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let own = home.join(".ringgate");
    match std::env::var_os("XDG_CONFIG_HOME") {
        Some(xdg) if !own.exists() && !xdg.is_empty() => PathBuf::from(xdg).join("ringgate"),
        _ => own,
    }
}
