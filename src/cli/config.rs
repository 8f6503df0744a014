//! `wiber config show`

use serde_json::json;

use super::exit::Failure;
use super::output::Out;
use super::settings::{self, BrokerFlags};
use crate::config::{Origin, Setting};

const EXAMPLES: &str = "\
Examples:
  wiber config show                    every setting, its value and where that came from
  wiber config show --port 9000        as a broker started with these flags would see them
  wiber config show --json | jq -r 'select(.from != \"default\") | .setting'";

/// Widest line of the table.
const COLUMNS: usize = 80;

/// Show the settings
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Print the effective settings and where each came from
    #[command(after_help = EXAMPLES)]
    #[command(after_long_help = format!("{EXAMPLES}\n\n{}", settings::help()))]
    Show {
        #[command(flatten)]
        flags: BrokerFlags,
        /// A JSON object for each setting
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Command::Show { flags, json } = &args.command;
    let (_, explained) = flags.load()?;
    let mut out = Out::new();
    if *json {
        explained.settings().iter().for_each(|setting| out.json(&object(setting)));
    } else {
        table(explained.settings()).iter().for_each(|line| out.line(line.as_bytes()));
    }
    out.flush()
}

fn object(setting: &Setting) -> serde_json::Value {
    let mut object = json!({ "setting": setting.key.name, "value": setting.value });
    let (from, name) = match &setting.origin {
        Origin::Default => ("default", None),
        Origin::File { path, line } => {
            object["line"] = json!(line);
            ("file", Some(path.display().to_string()))
        }
        Origin::Variable(name) => ("variable", Some(name.clone())),
        Origin::Flag(flag) => ("flag", Some((*flag).to_owned())),
    };
    object["from"] = json!(from);
    if let Some(name) = name {
        object["name"] = json!(name);
    }
    object
}

/// Three columns. Where a value is too long for them, where it came from stands below it.
fn table(settings: &[Setting]) -> Vec<String> {
    let width = |cells: &mut dyn Iterator<Item = usize>| cells.max().unwrap_or(0);
    let first = width(&mut settings.iter().map(|s| s.key.name.len()));
    let origins: Vec<_> = settings.iter().map(|s| short(&s.origin)).collect();
    let third = width(&mut origins.iter().map(|origin| origin.chars().count()));
    let room = COLUMNS.saturating_sub(first + third + 4);
    let lengths = settings.iter().map(|s| s.value.chars().count());
    let second = width(&mut lengths.filter(|length| *length <= room));
    let mut lines = vec![format!("{:first$}  {:second$}  from", "setting", "value")];
    for (setting, origin) in settings.iter().zip(origins) {
        let (name, value) = (setting.key.name, &setting.value);
        if value.chars().count() <= second {
            lines.push(format!("{name:first$}  {value:second$}  {origin}"));
        } else {
            lines.push(format!("{name:first$}  {value}"));
            lines.push(format!("{:first$}  {:second$}  {origin}", "", ""));
        }
    }
    lines
}

/// The origin in few characters: what it is shows in its form.
fn short(origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::File { path, line } => format!("{}:{line}", path.display()),
        Origin::Variable(name) => name.clone(),
        Origin::Flag(flag) => (*flag).to_owned(),
    }
}
