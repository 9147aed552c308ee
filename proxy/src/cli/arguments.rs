//! The command tree (user-experience sections 2 to 4, as far as it is due), with an example for every command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::output::FormatArgument;

/// Ringgate: an identity-aware gateway for databases
#[derive(Debug, Parser)]
#[command(name = "ringgate", version, propagate_version = true, arg_required_else_help = true)]
#[command(infer_long_args = false, subcommand_required = true, max_term_width = 120)]
#[command(
    after_long_help = "Examples:\n  ringgate quickstart --data-dir ./gw --db orders=postgres://app@127.0.0.1:5433/orders\n  \
                             ringgate --home ./gw/home db connect orders --db-user app --db-name orders"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Folder of the profile and its keys [default: ~/.ringgate]
    #[arg(long, global = true, value_name = "DIR", env = "RINGGATE_HOME")]
    pub(crate) home: Option<PathBuf>,
    /// Configuration file of the server on this machine; admin commands find its socket there
    #[arg(short, long, global = true, value_name = "FILE", env = "RINGGATE_CONFIG_FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Say nothing that is not data or an error
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more; repeat for yet more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Never ask; fail with exit code 2 when an answer would be needed
    #[arg(long, global = true)]
    pub(crate) no_input: bool,
    /// Answer yes to every question
    #[arg(long, global = true)]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make and serve a working gateway in one directory, on loopback
    #[command(
        after_long_help = "The URI of --db may also be env:VARIABLE or file:///path, which keeps a password out of \
                                 the list of processes.\n\nExample:\n  \
                                 ringgate quickstart --data-dir ./gw --db orders=env:ORDERS_URI"
    )]
    Quickstart(Quickstart),
    /// Serve from a configuration file
    #[command(visible_alias = "start", after_long_help = "Example:\n  ringgate server -c /etc/ringgate/ringgate.yaml")]
    Server,
    /// Check and show configuration files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Find, sign in to and use databases
    #[command(subcommand)]
    Db(DbCommand),
    /// Local listeners
    #[command(subcommand)]
    Proxy(ProxyCommand),
    /// Create resources from YAML
    #[command(
        after_long_help = "Examples:\n  ringgate create role.yaml\n  ringgate create -f role.yaml   # create or \
                                 update\n  ringgate get role/dev --format yaml | ringgate create -f -"
    )]
    Create(Create),
    /// Show resources: role, user, db
    #[command(after_long_help = "Examples:\n  ringgate get roles\n  ringgate get role/developer --format yaml")]
    Get(Get),
    /// Remove a resource
    #[command(after_long_help = "Example:\n  ringgate rm role/developer")]
    Rm(Remove),
    /// The certificate authorities
    #[command(subcommand, visible_alias = "auth")]
    Ca(CaCommand),
    /// Read and verify the audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Who is signed in, and the state of the gateway
    #[command(after_long_help = "Example:\n  ringgate status --format json")]
    Status(FormatArgument),
    /// Version, TLS provider and I/O driver
    #[command(after_long_help = "Example:\n  ringgate version --format json")]
    Version(FormatArgument),
    /// Print a completion script for a shell
    #[command(after_long_help = "Example:\n  ringgate completion bash > /etc/bash_completion.d/ringgate")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Quickstart {
    /// Directory of everything; made when it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Database to register, NAME=postgres://user:password@host:port/database, NAME=mysql://... or
    /// NAME=redis://:password@host:port; repeatable
    #[arg(long = "db", value_name = "NAME=URI")]
    pub(crate) databases: Vec<String>,
    /// Listener address on loopback, e.g. postgres=127.0.0.1:6432, redis=127.0.0.1:7379, mysql=127.0.0.1:3307 or diag=127.0.0.1:3000;
    /// repeatable
    #[arg(long = "listen", value_name = "NAME=ADDR")]
    pub(crate) listeners: Vec<String>,
    /// Name of the admin user
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub(crate) user: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every problem of a file with line and column; exit code 1 when there is one
    #[command(after_long_help = "Example:\n  ringgate config check ringgate.yaml")]
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the effective configuration: file, environment and defaults
    #[command(after_long_help = "Example:\n  ringgate config show ringgate.yaml")]
    Show {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        format: FormatArgument,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// List the databases you may use
    #[command(after_long_help = "Example:\n  ringgate db ls --format json")]
    Ls {
        /// Only databases whose name or description holds this text
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// Only databases with these labels, key=value, comma separated
        #[arg(value_name = "LABELS")]
        labels: Option<String>,
        #[command(flatten)]
        format: FormatArgument,
    },
    /// Get a short-lived certificate for a database
    #[command(after_long_help = "Example:\n  ringgate db login orders --db-user app --db-name orders")]
    Login {
        /// The databases
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        #[command(flatten)]
        route: RouteArguments,
        #[command(flatten)]
        format: FormatArgument,
    },
    /// Open a database in its own client; logs in first where needed
    #[command(
        after_long_help = "Examples:\n  ringgate db connect orders --db-user app -- -c 'select 1'\n  ringgate db connect \
                                 cache -- ping"
    )]
    Connect {
        /// The database; may be left out when you are logged in to only one
        #[arg(value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        route: RouteArguments,
        /// Arguments for the client
        #[arg(last = true, value_name = "CLIENT ARGS")]
        client: Vec<std::ffi::OsString>,
    },
    /// Print what a client needs to connect
    #[command(
        after_long_help = "Examples:\n  psql \"$(ringgate db config orders --format uri)\"\n  ringgate db config \
                                 orders --format json"
    )]
    Config {
        /// The database; may be left out when you are logged in to only one
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// Form of the output
        #[arg(short, long, value_enum, default_value = "text")]
        format: ConnectionFormat,
    },
    /// Print environment variables for a client
    #[command(after_long_help = "Example:\n  eval \"$(ringgate db env orders)\" && psql")]
    Env {
        /// The database; may be left out when you are logged in to only one
        #[arg(value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        format: FormatArgument,
    },
    /// Remove the credentials of a database, or of all
    #[command(after_long_help = "Examples:\n  ringgate db logout orders\n  ringgate db logout")]
    Logout {
        /// The database
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
}

/// As whom and where to.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RouteArguments {
    /// Database user
    #[arg(short = 'u', long, value_name = "USER")]
    pub(crate) db_user: Option<String>,
    /// Database name
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) db_name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConnectionFormat {
    /// For people
    Text,
    /// Command line of the native client
    Cmd,
    /// Connection URI
    Uri,
    /// Environment variables
    Env,
    /// Everything, JSON
    Json,
    /// Everything, YAML
    Yaml,
    /// Section of a connection service file
    Pgservice,
    /// JDBC URL
    Jdbc,
    /// Group of an option file of the mysql and mariadb clients
    Mycnf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProxyCommand {
    /// Serve plain clients on this machine through the gateway
    #[command(
        after_long_help = "Example:\n  ringgate proxy db --tunnel -u app -n orders --listen 127.0.0.1:15432 orders"
    )]
    Db(ProxyDb),
}

#[derive(Debug, Args)]
pub(crate) struct ProxyDb {
    /// The database
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Accept plain clients and add the certificate for them
    #[arg(long)]
    pub(crate) tunnel: bool,
    #[command(flatten)]
    pub(crate) route: RouteArguments,
    /// Address to listen on
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["port", "unix"])]
    pub(crate) listen: Option<String>,
    /// Port to listen on, at 127.0.0.1
    #[arg(short, long, value_name = "PORT", conflicts_with = "unix")]
    pub(crate) port: Option<u16>,
    /// Unix socket to listen on, made for you alone
    #[arg(long, value_name = "PATH")]
    pub(crate) unix: Option<PathBuf>,
    /// Listen on an address that other machines reach; whoever reaches it is you
    #[arg(long)]
    pub(crate) insecure_listen_anywhere: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// YAML of one or several documents; - or nothing is stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Update what exists
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Form of the output
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: super::output::Format,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// KIND or KIND/NAME
    #[arg(value_name = "KIND[/NAME]")]
    pub(crate) what: String,
    #[command(flatten)]
    pub(crate) format: FormatArgument,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// KIND/NAME
    #[arg(value_name = "KIND/NAME")]
    pub(crate) what: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Sign a certificate for a database server, and print how to install it
    #[command(
        after_long_help = "Examples:\n  ringgate ca sign --format=db --host db.example.com --out server --ttl 2190h\n  \
                                 ringgate ca sign --format=redis --host redis.example.com --out server --ttl 2190h"
    )]
    Sign(Sign),
}

#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// What the files are for
    #[arg(long, value_enum, default_value = "db")]
    pub(crate) format: SignFormat,
    /// Names and addresses of the server, comma separated; the first is the subject
    #[arg(long, value_name = "HOSTS", value_delimiter = ',', required = true)]
    pub(crate) host: Vec<String>,
    /// Files are named PREFIX.key, PREFIX.crt and PREFIX.cas
    #[arg(long, value_name = "PREFIX")]
    pub(crate) out: PathBuf,
    /// Life of the certificate
    #[arg(long, value_name = "DURATION", default_value = "2190h")]
    pub(crate) ttl: String,
    /// For a server that also dials its peers over TLS: replicas, the bus of Redis Cluster
    #[arg(long)]
    pub(crate) peer: bool,
    /// Replace files that exist
    #[arg(long)]
    pub(crate) overwrite: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SignFormat {
    /// Any database that takes PEM files
    Db,
    /// PostgreSQL, with its own option lines
    Postgres,
    /// Redis and Redis Cluster, with the lines of redis.conf
    Redis,
    /// MySQL, with its option lines
    Mysql,
    /// MariaDB, with its option lines
    Mariadb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Print records as they are written, one JSON object per line
    #[command(after_long_help = "Example:\n  ringgate audit tail --event 'db.session.*' --db orders")]
    Tail {
        #[command(flatten)]
        place: AuditPlace,
        #[command(flatten)]
        filter: AuditFilter,
        /// Records of the past to print first
        #[arg(long, value_name = "COUNT", default_value_t = 10)]
        lines: usize,
        /// Stop at the end of the log
        #[arg(long)]
        no_follow: bool,
    },
    /// Find records
    #[command(
        after_long_help = "Example:\n  ringgate audit search --user alice --since -24h --text 'drop table' --format json"
    )]
    Search {
        #[command(flatten)]
        place: AuditPlace,
        #[command(flatten)]
        filter: AuditFilter,
        /// Most records to print, the newest
        #[arg(long, value_name = "COUNT", default_value_t = 1000)]
        limit: usize,
        #[command(flatten)]
        format: FormatArgument,
    },
    /// Check that no record was changed, removed or moved; exit code 10 when one was
    #[command(after_long_help = "Example:\n  ringgate audit verify --dir /var/lib/ringgate/audit")]
    Verify {
        #[command(flatten)]
        place: AuditPlace,
        /// Public key of the checkpoints, when not the one beside the log
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Of segments that ended before this time check the links alone
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        since: Option<String>,
        #[command(flatten)]
        format: FormatArgument,
    },
}

/// Where the audit log is.
#[derive(Debug, Args)]
pub(crate) struct AuditPlace {
    /// Folder of the log; that of the profile unless given
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// Which records.
#[derive(Debug, Args)]
pub(crate) struct AuditFilter {
    /// Event name; * matches any text
    #[arg(long, value_name = "PATTERN")]
    pub(crate) event: Option<String>,
    /// Product user
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Database
    #[arg(long, value_name = "NAME")]
    pub(crate) db: Option<String>,
    /// Session id
    #[arg(long, value_name = "ID")]
    pub(crate) sid: Option<String>,
    /// From this time on: RFC 3339, or back from now like -24h
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) since: Option<String>,
    /// Up to this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) until: Option<String>,
    /// Text anywhere in the record, upper and lower case alike
    #[arg(long, value_name = "TEXT")]
    pub(crate) text: Option<String>,
}
