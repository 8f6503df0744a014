//! What a flag is if it is not given depends on the kind of run. The help shows it, from the preset
//! itself.

use clap::Arg;

use super::plan::Plan;
use crate::config::show_duration;

/// Shows in the help of each flag what this kind of run does without it, and leaves out what it does
/// not take.
pub(super) fn of(preset: &'static Plan) -> impl Fn(Arg) -> Arg {
    move |arg| {
        let default = match arg.get_id().as_str() {
            "window" | "backlog" if preset.rate.is_some() => return arg.hide(true),
            "connections" => preset.connections.to_string(),
            "window" => preset.window.to_string(),
            "size" => preset.size.to_string(),
            "rate" => match preset.rate {
                Some(rate) => rate.to_string(),
                None => "as fast as answers come".to_owned(),
            },
            "duration" => show_duration(preset.duration),
            "warmup" => show_duration(preset.warmup),
            "topics" => preset.topics.to_string(),
            "subscribers" => preset.subscribers.to_string(),
            "groups" => preset.groups.to_string(),
            "members" => preset.members.to_string(),
            "backlog" => preset.backlog.to_string(),
            _ => return arg,
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        arg.help(format!("{help} [default: {default}]"))
    }
}
