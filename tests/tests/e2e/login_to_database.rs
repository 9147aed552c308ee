//! How Ringgate logs in to the database: by client certificate, and by every kind of password.

use ringgate_tests::{
    Driver,
    gateway::{Gateway, SERVICE, Setup},
    on_both_drivers, places,
    postgres::{DATABASE, Options, Postgres, USER},
};

on_both_drivers!(
    by_client_certificate,
    by_scram,
    by_md5,
    by_clear_text_inside_verified_tls,
    clear_text_is_refused_without_tls,
    a_wrong_password_is_our_error_and_names_no_secret,
    an_unreachable_database_is_a_native_error,
    a_database_with_a_foreign_certificate_is_refused,
    a_database_without_tls_is_refused_when_tls_is_wanted,
);

const PASSWORD: &str = "correct-horse-7Q";

/// A gateway first, because it signs the certificates of the server that comes then.
fn with_certificates(driver: Driver, uri: impl Fn(u16) -> String, options: Options) -> (Postgres, Gateway) {
    let port = places::free_port();
    let gateway = Gateway::start(driver, &uri(port));
    let prefix = gateway.base().join("server");
    let out = prefix.to_str().expect("a path in UTF-8");
    let said =
        gateway.cli(&["ca", "sign", "--format=db", "--host", "localhost,127.0.0.1", "--out", out, "--ttl", "24h"]);
    assert!(said.stdout.contains("ssl_ca_file") || said.stderr.contains("ssl_ca_file"), "setup text: {said:?}");
    said.ok();
    (Postgres::start(options.certificates(&prefix).port(port)), gateway)
}

fn by_client_certificate(driver: Driver) {
    let uri = |port| format!("postgres://{USER}@localhost:{port}/{DATABASE}?sslmode=verify-full");
    let (server, gateway) = with_certificates(driver, uri, Options::hba(&["hostssl all all all cert"]));
    let db = gateway.login();
    assert_eq!(db.psql("select current_user").ok(), USER);
    let subject = db.psql("select client_dn from pg_stat_ssl where pid = pg_backend_pid()").ok();
    assert!(subject.contains(&format!("CN={USER}")), "{subject}");
    // Another database user gets a certificate of its own.
    server.sql("create role second login");
    assert_eq!(gateway.db_config(SERVICE, "second", DATABASE).psql("select current_user").ok(), "second");
    gateway.record("TDB00I", |r| r.text("db_user") == "second");
    gateway.finish();
}

fn password(driver: Driver, method: &str, encryption: &'static str) {
    let hba = format!("host all all all {method}");
    let server = Postgres::start(Options::hba(&[&hba]).password(PASSWORD, encryption));
    let gateway = Gateway::start(driver, &server.uri_with(PASSWORD, ""));
    let db = gateway.login();
    assert_eq!(db.psql("select current_user").ok(), USER);
    gateway.finish();
}

fn by_scram(driver: Driver) {
    password(driver, "scram-sha-256", "scram-sha-256");
}

fn by_md5(driver: Driver) {
    password(driver, "md5", "md5");
}

fn by_clear_text_inside_verified_tls(driver: Driver) {
    let uri = |port| format!("postgres://{USER}:{PASSWORD}@localhost:{port}/{DATABASE}?sslmode=verify-full");
    let options = Options::hba(&["hostssl all all all password"]).password(PASSWORD, "scram-sha-256");
    let (_server, gateway) = with_certificates(driver, uri, options);
    assert_eq!(gateway.login().psql("select current_user").ok(), USER);
    gateway.finish();
}

fn clear_text_is_refused_without_tls(driver: Driver) {
    let server = Postgres::start(Options::hba(&["host all all all password"]).password(PASSWORD, "scram-sha-256"));
    let gateway = Gateway::start(driver, &server.uri_with(PASSWORD, ""));
    gateway.login().psql("select 1").failed_with(2, &["FATAL"]);
    gateway.record("TDB00W", |_| true);
    gateway.finish();
}

fn a_wrong_password_is_our_error_and_names_no_secret(driver: Driver) {
    let server = Postgres::start(Options::hba(&["host all all all scram-sha-256"]).password(PASSWORD, "scram-sha-256"));
    let gateway = Gateway::start(driver, &server.uri_with("not-the-password-9Z", ""));
    let said = gateway.login().psql("select 1");
    said.failed_with(2, &["FATAL"]);
    assert!(!said.stderr.contains("not-the-password-9Z"), "{said:?}");
    let record = gateway.record("TDB00W", |_| true);
    assert!(!record.0.to_string().contains("not-the-password-9Z"), "{}", record.0);
    gateway.finish();
}

fn an_unreachable_database_is_a_native_error(driver: Driver) {
    let gateway = Gateway::start(driver, &format!("postgres://{USER}@127.0.0.1:{}/{DATABASE}", places::free_port()));
    gateway.login().psql("select 1").failed_with(2, &["FATAL"]);
    gateway.record("TDB00W", |_| true);
    gateway.finish();
}

fn a_database_with_a_foreign_certificate_is_refused(driver: Driver) {
    let port = places::free_port();
    let uri = format!("postgres://{USER}@localhost:{port}/{DATABASE}?sslmode=verify-full");
    let gateway = Setup::new(driver, &uri).start();
    // Signed by the CA of another cluster.
    let other = Setup::new(driver, &uri).start();
    let prefix = other.base().join("server");
    let out = prefix.to_str().expect("a path in UTF-8");
    other.cli(&["ca", "sign", "--format=db", "--host", "localhost", "--out", out, "--ttl", "24h"]).ok();
    let _server = Postgres::start(Options::hba(&["host all all all trust"]).certificates(&prefix).port(port));
    gateway.login().psql("select 1").failed_with(2, &["FATAL"]);
    let record = gateway.record("TDB00W", |_| true);
    assert!(record.text("error").to_lowercase().contains("certificate"), "{}", record.0);
    assert_eq!(other.login().psql("select 'its own'").ok(), "its own");
    gateway.finish();
}

fn a_database_without_tls_is_refused_when_tls_is_wanted(driver: Driver) {
    let server = Postgres::start(Options::trust());
    let uri = format!("postgres://{USER}@localhost:{}/{DATABASE}?sslmode=verify-full", server.port);
    let gateway = Gateway::start(driver, &uri);
    gateway.login().psql("select 1").failed_with(2, &["FATAL"]);
    gateway.record("TDB00W", |_| true);
    assert!(server.sql("select count(*) from pg_stat_activity where usename = 'app'") == "0");
    gateway.finish();
}
