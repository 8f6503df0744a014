use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

fn file(text: &str) -> SettingsFile {
    SettingsFile { path: PathBuf::from("wiber.toml"), text: text.to_owned() }
}

fn by_variables(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(&Overrides::default(), variables(pairs), None).map(|(config, _)| config)
}

fn by_file(text: &str) -> Result<Config, ConfigError> {
    Config::load(&Overrides::default(), [], Some(&file(text))).map(|(config, _)| config)
}

#[track_caller]
fn refusal<T: std::fmt::Debug>(result: Result<T, ConfigError>) -> String {
    let error = result.expect_err("refused");
    format!("{error}\n{}", error.hint())
}

#[test]
fn the_defaults_are_what_the_documentation_says() {
    let Config { server, storage, retention, delivery, limits, log } = Config::default();
    assert_eq!((server.host.as_str(), server.port), ("127.0.0.1", 8888));
    assert_eq!(server.keep_awake, KeepAwake::Auto);
    assert_eq!(storage.data_dir, PathBuf::from("./data"));
    assert_eq!(storage.fsync, Fsync::Always);
    assert_eq!((storage.segment, storage.wal_segment), (64 << 20, 32 << 20));
    assert_eq!(storage.checkpoint_bytes, 64 << 20);
    assert_eq!(storage.checkpoint_interval, Duration::from_secs(30));
    assert_eq!(storage.min_free, MinFree::Auto);
    assert_eq!((retention.age, retention.bytes), (None, None));
    assert_eq!(delivery.ack_timeout, Duration::from_secs(30));
    assert_eq!(delivery.dead_after, Duration::from_secs(30));
    assert_eq!((delivery.max_retries, delivery.prefetch), (3, 5));
    assert_eq!(delivery.backoff, [1, 2, 4].map(Duration::from_secs));
    assert_eq!((limits.message, limits.connections), (1 << 20, 10_000));
    assert_eq!((log.level.as_str(), log.format), ("info", LogFormat::Human));
}

#[test]
fn every_key_reads_back_what_it_shows_and_is_complete() {
    let (config, explained) = Config::load(&Overrides::default(), [], None).unwrap();
    assert_eq!(explained.settings().len(), KEYS.len());
    for (key, setting) in KEYS.iter().zip(explained.settings()) {
        assert_eq!(setting.value, key.default, "{}: defaults are in their shortest form", key.name);
        let mut again = Config::blank();
        assert!((key.set)(&mut again, &setting.value), "{}", key.name);
        assert_eq!((key.show)(&again), setting.value, "{}", key.name);
        assert!(!key.allowed.is_empty() && key.doc.ends_with('.'), "{}", key.name);
        let same_name = KEYS.iter().filter(|other| other.name == key.name).count();
        assert_eq!(same_name, 1, "{}", key.name);
    }
    assert_eq!(config, Config::default());
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let file = file("[server]\nhost = \"a\"\nport = 1\n[storage]\nfsync = \"never\"\n");
    let env =
        variables(&[("WIBER_PORT", "2"), ("WIBER_STORAGE__FSYNC", "interval"), ("PORT", "9")]);
    let flags = Overrides::default().with("--fsync", Some("always")).with("--host", None::<String>);
    let (config, explained) = Config::load(&flags, env, Some(&file)).unwrap();
    assert_eq!((config.server.host.as_str(), config.server.port), ("a", 2));
    assert_eq!(config.storage.fsync, Fsync::Always);
    let shown: Vec<_> = explained.settings()[..5]
        .iter()
        .map(|s| format!("{} = {} ({})", s.key.name, s.value, s.origin))
        .collect();
    assert_eq!(
        shown,
        [
            "server.host = a (file wiber.toml, line 2)",
            "server.port = 2 (variable WIBER_PORT)",
            "server.keep_awake = auto (default)",
            "storage.data_dir = ./data (default)",
            "storage.fsync = always (flag --fsync)",
        ]
    );
}

#[test]
fn every_key_can_be_set_by_variable_and_by_file() {
    for key in KEYS {
        let (section, leaf) = key.name.split_once('.').unwrap();
        let text = format!("[{section}]\n{leaf} = \"{}\"", key.default);
        let by_file = Config::load(&Overrides::default(), [], Some(&file(&text))).unwrap();
        let env = variables(&[(&key.variable(), key.default)]);
        let by_variable = Config::load(&Overrides::default(), env, None).unwrap();
        for (_, explained) in [by_file, by_variable] {
            let set = explained.settings().iter().filter(|s| s.origin != Origin::Default);
            assert_eq!(set.map(|s| s.key.name).collect::<Vec<_>>(), [key.name]);
        }
    }
}

#[test]
fn the_file_can_be_written_in_the_ways_of_toml() {
    let config = by_file(
        "\u{feff}# a comment\r\ndelivery.backoff = [\"100ms\", \"1s\"]\r\n\
         delivery.prefetch = 1_000\n[limits]\nmessage = 0x400\n[log]\n[server]\nport = 0",
    )
    .unwrap();
    assert_eq!(config.delivery.backoff, [100, 1000].map(Duration::from_millis));
    assert_eq!((config.delivery.prefetch, config.limits.message), (1000, 1024));
    assert_eq!(config.server.port, 0);
}

#[test]
fn variables_set_lists_and_durations() {
    let config = by_variables(&[
        ("WIBER_DELIVERY__ACK_TIMEOUT", "2s"),
        ("WIBER_DELIVERY__BACKOFF", "100ms,200ms, 400ms"),
        ("WIBER_STORAGE__MIN_FREE", "5%"),
        ("WIBER_DATA_DIR", "/var/lib/wiber"),
        ("WIBER_STORAGE__DATA_DIR", "/var/lib/wiber"),
        ("WIBER_CONFIG", "not read here"),
        ("WIBER_SOMEBODY_ELSES", "x"),
    ])
    .unwrap();
    assert_eq!(config.delivery.ack_timeout, Duration::from_secs(2));
    assert_eq!(config.delivery.backoff, [100, 200, 400].map(Duration::from_millis));
    assert_eq!(config.storage.min_free, MinFree::Percent(5));
    assert_eq!(config.storage.data_dir, PathBuf::from("/var/lib/wiber"));
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest() {
    for (text, words) in [
        (
            "[delivery]\n\nack_timout = \"2s\"",
            "failed to read the settings: there is no setting delivery.ack_timout \
             (file wiber.toml, line 3)\ndid you mean delivery.ack_timeout?",
        ),
        ("port = 1", "did you mean server.port?"),
        ("[storage]\nprefetch = 1", "did you mean delivery.prefetch?"),
        ("[sever]\nport = 1", "did you mean server.port?"),
        ("[nonsense]", "there is no setting nonsense (file wiber.toml, line 1)\n`wiber config"),
        ("[server.port]\nx = 1", "there is no setting server.port.x"),
    ] {
        let said = refusal(by_file(text));
        assert!(said.contains(words), "{text}: {said}");
    }
    for (name, words) in [
        ("WIBER_DELIVERY__ACK_TIMOUT", "did you mean WIBER_DELIVERY__ACK_TIMEOUT?"),
        ("WIBER_DELIVERY_ACK_TIMEOUT", "did you mean WIBER_DELIVERY__ACK_TIMEOUT?"),
        (
            "WIBER_STORAGE__FSNYC",
            "(variable WIBER_STORAGE__FSNYC)\ndid you mean WIBER_STORAGE__FSYNC",
        ),
        ("WIBER_X__Y", "`wiber config show` lists every setting"),
    ] {
        let said = refusal(by_variables(&[(name, "1")]));
        assert!(said.contains(words), "{name}: {said}");
    }
}

/// `WIBER_DATADIR=/srv/wiber` started a broker in `./data`.
#[test]
fn a_variable_that_is_nearly_ours_is_refused_and_others_are_let_pass() {
    for (name, meant) in [
        ("WIBER_DATADIR", "WIBER_DATA_DIR"),
        ("WIBER_DATA_DIRS", "WIBER_DATA_DIR"),
        ("WIBER_PROT", "WIBER_PORT"),
        ("WIBER_PORTS", "WIBER_PORT"),
        ("WIBER_HOSTS", "WIBER_HOST"),
        ("WIBER_CONF", "WIBER_CONFIG"),
        ("WIBER_CONFG", "WIBER_CONFIG"),
        ("WIBER_FSYNC", "WIBER_STORAGE__FSYNC"),
        ("WIBER_FSNYC", "WIBER_STORAGE__FSYNC"),
        ("WIBER_ACK_TIMEOUT", "WIBER_DELIVERY__ACK_TIMEOUT"),
        ("WIBER_AGE", "WIBER_RETENTION__AGE"),
        ("WIBER_STORAGE_FSNYC", "WIBER_STORAGE__FSYNC"),
        ("WIBER_LOG_LEVELS", "WIBER_LOG__LEVEL"),
    ] {
        let said = refusal(by_variables(&[(name, "1")]));
        let words = format!("there is no setting {name} (variable {name})\ndid you mean {meant}?");
        assert!(said.ends_with(&words), "{name}: {said}");
    }
    for key in KEYS {
        let leaf = key.name.rsplit('.').next().unwrap().to_ascii_uppercase();
        let name = format!("WIBER_{leaf}");
        assert!(
            key.short_variable == Some(&name) || by_variables(&[(&name, "")]).is_err(),
            "{name}"
        );
    }
    // A Kubernetes service of this name.
    let linked = by_variables(&[("WIBER_PORT", "tcp://10.0.0.1:8888")]).unwrap();
    assert_eq!(linked.server.port, Config::default().server.port);
    for name in [
        "WIBER_",
        "WIBER_HOME",
        "WIBER_ROOT",
        "WIBER_USER",
        "WIBER_IMAGE",
        "WIBER_PAGE",
        "WIBER_LABEL",
        "WIBER_VERSION",
        "WIBER_SERVICE_HOST",
        "WIBER_SERVICE_PORT",
        "WIBER_PORT_8888_TCP_ADDR",
        "WIBERPORT",
        "HOST",
    ] {
        assert!(by_variables(&[(name, "1")]).is_ok(), "{name}");
    }
}

#[test]
fn a_value_that_is_not_allowed_is_refused_with_what_is() {
    assert_eq!(
        refusal(by_variables(&[("WIBER_DELIVERY__ACK_TIMEOUT", "30")])),
        "failed to set delivery.ack_timeout to \"30\": it has to be a duration from 1ms to 24h \
         (variable WIBER_DELIVERY__ACK_TIMEOUT)\nits default is 30s; `wiber help broker` says more"
    );
    for (name, bad) in [
        ("server.host", &["", "a b", "a/b", "tcp://10.0.0.1:8888"][..]),
        ("server.port", &["-1", "65536", "http", "", "+1", "1.0", "tcp://10.0.0.1:8888"]),
        ("server.keep_awake", &["", "yes", "true", "always"]),
        ("storage.data_dir", &["", "a\0b"]),
        ("storage.fsync", &["yes", "interval:", "interval:0ms", "interval:2m", "Always"]),
        ("storage.segment", &["0", "1KiB", "3GiB", "64MB", "64 mib", "-1", "1.5MiB"]),
        ("storage.wal_segment", &["1000", "2GiB"]),
        ("storage.checkpoint_bytes", &["1KiB", "99999999999999999999GiB"]),
        ("storage.checkpoint_interval", &["0s", "25h", "30", "9ms"]),
        ("storage.min_free", &["91%", "-1%", "%", "x", "1TiB", "256%", "300%"]),
        (
            "retention.age",
            &["", "0s", "999ms", "36501d", "7", "1w", "-1d", "99999999999999999999d"],
        ),
        ("retention.bytes", &["", "0", "63KiB", "forever", "-1", "1TB"]),
        ("delivery.ack_timeout", &["0s", "1d", "s", "99999999999999999999h", "5 minutes"]),
        ("delivery.dead_after", &["0ms", "never"]),
        ("delivery.max_retries", &["-1", "101", "three"]),
        ("delivery.backoff", &["", "1s,", "1s,,2s", "1,2,4", "25h"]),
        ("delivery.prefetch", &["0", "10001", "1__0", "_1"]),
        ("limits.message", &["0", "17MiB", "16777217"]),
        ("limits.connections", &["0", "1000001"]),
        ("log.level", &["", "inof", "info,", "wiber::wal", "=info", "wiber=loud", "info,x=[y"]),
        ("log.format", &["text", "JSON"]),
    ] {
        let key = KEYS.iter().find(|key| key.name == name).unwrap();
        for value in bad {
            let said = refusal(by_variables(&[(&key.variable(), value)]));
            assert!(said.contains(name) && said.contains(key.allowed), "{name} = {value}: {said}");
        }
    }
    let many = vec!["1s"; 33].join(",");
    refusal(by_variables(&[("WIBER_DELIVERY__BACKOFF", &many)]));
    refusal(by_file("[server]\nhost = [\"a\"]"));
    refusal(by_file("[server]\nport = true"));
    refusal(by_file("[server]\nport = 1.5"));
    refusal(by_file("[delivery]\nbackoff = []"));
}

#[test]
fn the_edges_of_ranges_are_allowed() {
    for (name, good) in [
        ("server.port", &["0", "65535"][..]),
        ("server.host", &["::1", "0.0.0.0", "broker-1.example_net", "fe80::1%eth0"]),
        ("server.keep_awake", &["never", "auto", "busy"]),
        ("storage.fsync", &["interval:1ms", "interval:1m", "never"]),
        ("storage.segment", &["64KiB", "2GiB", "65536", "1_000_000"]),
        ("storage.min_free", &["0%", "90%", "0", "1GiB", "5 %"]),
        ("storage.checkpoint_interval", &["10ms", "24h", "30 s"]),
        ("retention.age", &["forever", "1s", "90m", "36h", "7d", "36500d"]),
        ("retention.bytes", &["unlimited", "64KiB", "100GiB"]),
        ("delivery.ack_timeout", &["1ms", "5m", "24h"]),
        ("delivery.max_retries", &["0", "100"]),
        ("delivery.backoff", &["0s", "1s"]),
        ("delivery.prefetch", &["1", "10000"]),
        ("limits.message", &["1", "16MiB"]),
        ("log.level", &["WARN", "info,wiber::wal=debug", "off", "wiber=trace"]),
    ] {
        let key = KEYS.iter().find(|key| key.name == name).unwrap();
        for value in good {
            assert!(by_variables(&[(&key.variable(), value)]).is_ok(), "{name} = {value}");
        }
    }
}

#[test]
fn two_variables_for_one_setting_have_to_agree() {
    let said = refusal(by_variables(&[("WIBER_PORT", "1"), ("WIBER_SERVER__PORT", "2")]));
    assert!(said.contains("WIBER_PORT and WIBER_SERVER__PORT have different values"), "{said}");
}

#[test]
fn what_is_not_toml_is_refused_with_its_line() {
    let said = refusal(by_file("[server]\nport = \n"));
    assert!(said.starts_with("failed to read wiber.toml, line 2: "), "{said}");
    let said = refusal(by_file("[server]\nport = 1\nport = 2\n"));
    assert!(said.starts_with("failed to read wiber.toml, line 3: "), "{said}");
}

#[test]
fn a_variable_that_is_not_utf_8_is_refused_if_it_is_ours() {
    let broken = || OsString::from_vec(vec![0xff]);
    let others = [(OsString::from("PATH"), broken()), (broken(), broken())];
    assert!(Config::load(&Overrides::default(), others, None).is_ok());
    let ours = [(OsString::from("WIBER_DATA_DIR"), broken())];
    let said = refusal(Config::load(&Overrides::default(), ours, None));
    assert!(said.contains("WIBER_DATA_DIR"), "{said}");
}

#[test]
fn room_to_leave_free_is_the_smaller_of_five_percent_and_a_gibibyte() {
    assert_eq!(MinFree::Auto.bytes_of(100 << 20), 5 << 20);
    assert_eq!(MinFree::Auto.bytes_of(1 << 40), 1 << 30);
    assert_eq!(MinFree::Percent(90).bytes_of(u64::MAX), u64::MAX / 10 * 9 + 4);
    assert_eq!(MinFree::Bytes(7).bytes_of(1), 7);
}

/// With a blank before it `info` was taken for a module, which turned off everything else, failures too.
#[test]
fn blanks_around_the_parts_of_a_level_are_no_part_of_them() {
    for (text, level) in [
        ("wiber::broker=debug, info", "wiber::broker=debug,info"),
        (" warn ,  wiber::wal = trace ", "warn,wiber::wal=trace"),
    ] {
        assert_eq!(by_variables(&[("WIBER_LOG__LEVEL", text)]).unwrap().log.level, level);
    }
}

/// A pod beside a service called `wiber-server` could not run a broker: its port was refused.
#[test]
fn what_kubernetes_says_of_a_service_is_passed_over() {
    for service in
        ["WIBER", "WIBER_SERVER", "WIBER_BROKER", "WIBER_DATA", "WIBER_LOG", "WIBER_HOST"]
    {
        for (end, value) in [
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "8888"),
            ("SERVICE_PORT_CLIENTS", "8888"),
            ("PORT", "tcp://10.0.0.1:8888"),
            ("PORT", "udp://10.0.0.1:8888"),
            ("PORT_8888_TCP", "tcp://10.0.0.1:8888"),
            ("PORT_8888_TCP_PROTO", "tcp"),
            ("PORT_8888_TCP_PORT", "8888"),
            ("PORT_8888_TCP_ADDR", "10.0.0.1"),
        ] {
            let name = format!("{service}_{end}");
            let config = by_variables(&[(&name, value)]).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(config.server, Config::default().server, "{name}");
        }
    }
    for (name, value) in
        [("WIBER_SERVER_PORT", "8888"), ("WIBER_SERVER__PORT", "tcp://10.0.0.1:8888")]
    {
        assert!(by_variables(&[(name, value)]).is_err(), "{name}");
    }
}

/// It was refused, whatever its name.
#[test]
fn a_foreign_variable_need_not_be_utf_8() {
    let load = |name: &str| {
        let variable = (OsString::from(name), OsString::from_vec(vec![0xff]));
        Config::load(&Overrides::default(), [variable], None)
    };
    assert!(load("WIBER_HOME").is_ok());
    for (name, words) in [
        ("WIBER_CONFIG", "WIBER_CONFIG"),
        ("WIBER_PORT", "WIBER_PORT"),
        ("WIBER_DATADIR", "did you mean WIBER_DATA_DIR?"),
    ] {
        let said = refusal(load(name));
        assert!(said.contains(words), "{said}");
    }
}
