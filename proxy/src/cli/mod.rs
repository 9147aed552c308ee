//! The command line: one file per family of commands, and what they share.

mod arguments;
mod audit;
mod authority;
mod config;
mod context;
mod database;
mod facts;
mod failure;
mod login;
mod output;
mod quickstart;
mod resources;
mod serve;
mod status;
mod tunnel;
mod uri;

use clap::{CommandFactory as _, FromArgMatches as _};

use arguments::{Arguments, Command, ConfigCommand, DbCommand, ProxyCommand};
use context::Context;
use failure::{Exit, Failure};

/// Runs the command of the process's arguments; the result is the exit code (user-experience 3.3).
pub(crate) fn run() -> i32 {
    let matches = match Arguments::command().try_get_matches() {
        Ok(matches) => matches,
        Err(e) => {
            let code = if e.use_stderr() { Exit::Usage.code() } else { 0 };
            // A closed stdout or stderr is nobody to tell.
            let _ = e.print();
            return code;
        }
    };
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(e) => e.exit(),
    };
    match dispatch(arguments) {
        Ok(code) => code,
        Err(failure) => {
            output::note(false, failure.render().trim_end());
            failure.exit.code()
        }
    }
}

fn dispatch(arguments: Arguments) -> Result<i32, Failure> {
    let context = Context::new(arguments.global);
    match arguments.command {
        Command::Quickstart(quickstart) => return quickstart::run(&context, quickstart),
        Command::Server => return serve::run(&context),
        Command::Config(ConfigCommand::Check { file }) => return config::check(&file),
        Command::Config(ConfigCommand::Show { file, format }) => config::show(&file, format.format)?,
        Command::Db(DbCommand::Ls { search, labels, format }) => {
            database::list(&context, search.as_deref(), labels.as_deref(), format.format)?;
        }
        Command::Db(DbCommand::Login { names, route, format }) => {
            database::login(&context, &names, &route, format.format)?;
        }
        Command::Db(DbCommand::Connect { name, route, client }) => {
            return database::connect(&context, name.as_deref(), &route, &client);
        }
        Command::Db(DbCommand::Config { name, format }) => database::config(&context, name.as_deref(), format)?,
        Command::Db(DbCommand::Env { name, format }) => database::env(&context, name.as_deref(), format.format)?,
        Command::Db(DbCommand::Logout { name }) => database::logout(&context, name.as_deref())?,
        Command::Proxy(ProxyCommand::Db(arguments)) => tunnel::run(&context, &arguments)?,
        Command::Create(create) => resources::create(&context, &create)?,
        Command::Get(get) => resources::get(&context, &get)?,
        Command::Rm(remove) => resources::remove(&context, &remove)?,
        Command::Ca(arguments::CaCommand::Sign(sign)) => authority::sign(&context, &sign)?,
        Command::Audit(command) => return audit::run(&context, command),
        Command::Status(format) => status::status(&context, format.format)?,
        Command::Version(format) => status::version(&context, format.format)?,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "ringgate", &mut script);
            output::write(&String::from_utf8_lossy(&script))?;
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn walk(command: &clap::Command, path: &str, without: &mut Vec<String>) {
            for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
                let path = format!("{path} {}", sub.get_name());
                let example = sub.get_after_long_help().is_some_and(|help| help.to_string().contains("ringgate "));
                if !sub.has_subcommands() && !example {
                    without.push(path.clone());
                }
                walk(sub, &path, without);
            }
        }
        let mut without = Vec::new();
        walk(&Arguments::command(), "ringgate", &mut without);
        assert_eq!(without, Vec::<String>::new());
    }
}
