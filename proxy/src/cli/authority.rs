//! `ca sign`: files for a self-hosted database, and how to install them.

use std::path::{Path, PathBuf};

use super::arguments::{Sign, SignFormat};
use super::context::{Context, refused, time};
use super::failure::{Exit, Failure, file};
use super::output;
use crate::config::parse_duration;
use crate::profile::replace;

pub(super) fn sign(context: &Context, sign: &Sign) -> Result<(), Failure> {
    let ttl = parse_duration(&sign.ttl).map_err(|why| Failure::new(Exit::Usage, "--ttl is wrong").why(why))?;
    let [key, cert, cas] = ["key", "crt", "cas"].map(|suffix| with_suffix(&sign.out, suffix));
    if !sign.overwrite
        && let Some(there) = [&key, &cert, &cas].into_iter().find(|path| path.exists())
    {
        return Err(Failure::new(Exit::Conflict, format!("{} exists already", there.display()))
            .why("replacing the key of a database by accident would lock clients out")
            .attempt("add --overwrite, or choose another --out"));
    }
    let files = context.admin()?.sign_database_server(&sign.host, ttl, sign.peer).map_err(refused)?;
    let contents = [(&key, files.key_pem.as_str()), (&cert, files.cert_pem.as_str()), (&cas, files.cas_pem.as_str())];
    for (path, content) in contents {
        replace(path, content.as_bytes()).map_err(|e| file("write", path, &e))?;
    }
    let shown = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).display().to_string();
    context.note(&format!("wrote    {}, {}, {}", key.display(), cert.display(), cas.display()));
    context.note(&format!("renew    before {}", time(files.not_after_unix)));
    let (key, cert, cas) = (shown(&key), shown(&cert), shown(&cas));
    output::write(&match sign.format {
        SignFormat::Db | SignFormat::Postgres => postgres_text(&key, &cert, &cas),
        SignFormat::Redis => redis_text(&key, &cert, &cas, sign.peer),
        SignFormat::Mysql => mysql_text(&key, &cert, &cas, "mysqld", "ALTER INSTANCE RELOAD TLS"),
        SignFormat::Mariadb => mysql_text(&key, &cert, &cas, "mariadbd", "FLUSH SSL"),
    })
}

/// `PREFIX.suffix`, keeping dots that are part of the prefix.
fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut name = prefix.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn postgres_text(key: &str, cert: &str, cas: &str) -> String {
    format!(
        "# postgresql.conf (the files must belong to the server's user, the key with mode 0600)\n\
         ssl = on\nssl_cert_file = '{cert}'\nssl_key_file = '{key}'\nssl_ca_file = '{cas}'\n\n\
         # pg_hba.conf, before other lines for these users: the gateway logs in with a certificate whose name is the \
         database user\nhostssl all all 0.0.0.0/0 cert\nhostssl all all ::/0 cert\n\n\
         # then reload: SELECT pg_reload_conf();\n"
    )
}

/// The options of redis.conf, as Redis' own page "TLS" has them.
fn redis_text(key: &str, cert: &str, cas: &str, peer: bool) -> String {
    let peers = if peer { "tls-replication yes\ntls-cluster yes\n" } else { "" };
    format!(
        "# redis.conf (the files must belong to the server's user, the key with mode 0600)\n\
         tls-port 6379\nport 0\naclfile /path/to/users.acl\n\
         tls-ca-cert-file {cas}\ntls-cert-file {cert}\ntls-key-file {key}\n\
         tls-auth-clients yes\ntls-protocols \"TLSv1.2 TLSv1.3\"\n{peers}\n\
         # users.acl: a certificate proves the gateway and no user, so every user has a password (auth: password, or \
         passthrough where people type it), and `default` has one or is off\n\
         user default off\nuser alice on #SHA256-OF-THE-PASSWORD allcommands allkeys allchannels\n\n\
         # then restart the server; renewed files are taken up by: CONFIG SET tls-cert-file {cert}\n"
    )
}

/// The options of my.cnf, and the users that the gateway's certificates are for.
fn mysql_text(key: &str, cert: &str, cas: &str, group: &str, reload: &str) -> String {
    format!(
        "# my.cnf (the files must belong to the server's user, the key with mode 0600)\n\
         [{group}]\nssl-ca={cas}\nssl-cert={cert}\nssl-key={key}\nrequire_secure_transport=ON\n\n\
         # users: the gateway logs in with a certificate whose name is the database user (auth: mtls)\n\
         CREATE USER 'alice'@'%' REQUIRE SUBJECT '/CN=alice';\n\n\
         # then restart the server; renewed files are taken up by: {reload}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_is_told_about_replicas_only_when_the_certificate_is_for_peers() {
        let text = redis_text("/s.key", "/s.crt", "/s.cas", false);
        let lines =
            ["tls-port 6379", "port 0", "tls-ca-cert-file /s.cas", "tls-cert-file /s.crt", "tls-key-file /s.key"];
        for line in lines {
            assert!(text.lines().any(|l| l == line), "{line}");
        }
        assert!(!text.contains("tls-cluster"));
        assert!(redis_text("/s.key", "/s.crt", "/s.cas", true).contains("tls-cluster yes\n"));
    }

    #[test]
    fn mysql_is_told_its_files_and_whom_they_are_for() {
        let text = mysql_text("/s.key", "/s.crt", "/s.cas", "mariadbd", "FLUSH SSL");
        for line in ["[mariadbd]", "ssl-ca=/s.cas", "ssl-cert=/s.crt", "ssl-key=/s.key", "require_secure_transport=ON"]
        {
            assert!(text.lines().any(|l| l == line), "{line}");
        }
        assert!(text.contains("REQUIRE SUBJECT '/CN=alice'") && text.contains("FLUSH SSL"));
    }

    #[test]
    fn a_prefix_keeps_its_dots() {
        assert_eq!(with_suffix(Path::new("/d/db.example"), "crt"), Path::new("/d/db.example.crt"));
    }
}
