use oci_spec::image::ConfigBuilder;

use super::*;

fn id() -> ContainerId {
    ContainerId::from_bytes([0xab; 32])
}

fn list(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn plain() -> CreateOptions {
    CreateOptions {
        command: list(&["sh"]),
        ..Default::default()
    }
}

/// What `docker inspect` shows as Path and Args.
#[test]
fn entrypoint_and_command_combine_as_dockers() {
    type Case<'a> = (
        Option<&'a [&'a str]>,
        Option<&'a [&'a str]>,
        Option<&'a str>,
        &'a [&'a str],
        &'a [&'a str],
    );
    let cases: [Case; 11] = [
        // image entrypoint, image cmd, --entrypoint, arguments, what runs
        (None, Some(&["bash"]), None, &[], &["bash"]),
        (None, Some(&["bash"]), None, &["ls", "-l"], &["ls", "-l"]),
        (Some(&["ep"]), None, None, &[], &["ep"]),
        (
            Some(&["ep", "-x"]),
            Some(&["a", "b"]),
            None,
            &[],
            &["ep", "-x", "a", "b"],
        ),
        (Some(&["ep"]), Some(&["a"]), None, &["c"], &["ep", "c"]),
        (Some(&["ep"]), Some(&["a"]), Some("new"), &[], &["new"]),
        (
            Some(&["ep"]),
            Some(&["a"]),
            Some("new"),
            &["c"],
            &["new", "c"],
        ),
        (Some(&["ep"]), Some(&["a"]), Some(""), &["c"], &["c"]),
        (Some(&["ep"]), Some(&["a"]), Some(""), &[], &[]),
        (None, None, None, &[], &[]),
        (Some(&[]), Some(&[]), None, &[], &[]),
    ];
    for (entrypoint, cmd, flag, arguments, expected) in cases {
        let mut image = ConfigBuilder::default();
        if let Some(entrypoint) = entrypoint {
            image = image.entrypoint(list(entrypoint));
        }
        if let Some(cmd) = cmd {
            image = image.cmd(list(cmd));
        }
        let options = CreateOptions {
            entrypoint: flag.map(str::to_owned),
            command: list(arguments),
            ..Default::default()
        };
        let merged = merge(&id(), &options, &image.build().unwrap());
        match merged {
            Ok(merged) => assert_eq!(
                merged.process.args, expected,
                "{entrypoint:?} {cmd:?} {flag:?} {arguments:?}"
            ),
            Err(error) => {
                assert_eq!(error, OptionError::NoCommand);
                assert!(
                    expected.is_empty(),
                    "{entrypoint:?} {cmd:?} {flag:?} {arguments:?}"
                );
            }
        }
    }
}

#[test]
fn the_environment_is_defaults_then_flags_then_image() {
    let image = ConfigBuilder::default()
        .env(list(&["PATH=/image", "LANG=C", "KEEP=1", "GONE=1"]))
        .build()
        .unwrap();
    let options = CreateOptions {
        env: list(&["LANG=de", "NEW=a=b", "GONE"]),
        tty: true,
        ..plain()
    };
    let merged = merge(&id(), &options, &image).unwrap();
    assert_eq!(
        merged.config.env,
        ["LANG=de", "NEW=a=b", "GONE", "PATH=/image", "KEEP=1"]
    );
    assert_eq!(
        merged.process.env,
        [
            "PATH=/image",
            "HOSTNAME=abababababab",
            "TERM=xterm",
            "LANG=de",
            "NEW=a=b",
            "KEEP=1"
        ]
    );
}

#[test]
fn the_default_environment_can_be_replaced_and_removed() {
    let merged = |env: &[&str]| {
        let options = CreateOptions {
            env: list(env),
            ..plain()
        };
        merge(&id(), &options, &ImageConfig::default())
            .unwrap()
            .process
            .env
    };
    assert_eq!(merged(&[]), [DEFAULT_PATH, "HOSTNAME=abababababab"]);
    assert_eq!(merged(&["PATH=/x", "HOSTNAME"]), ["PATH=/x"]);
    assert_eq!(merged(&["A=1", "A=2", "B="])[2..], ["A=2", "B="]);
    for bad in ["", "=x", "A=\0"] {
        let options = CreateOptions {
            env: list(&[bad]),
            ..plain()
        };
        assert!(
            merge(&id(), &options, &ImageConfig::default()).is_err(),
            "{bad:?}"
        );
    }
}

#[test]
fn flags_win_over_the_images_user_directory_labels_and_signal() {
    let image = ConfigBuilder::default()
        .user("www:www")
        .working_dir("/srv//app/")
        .labels(
            [("a", "1"), ("b", "1")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into_iter()
                .collect::<std::collections::HashMap<_, _>>(),
        )
        .stop_signal("SIGQUIT")
        .build()
        .unwrap();
    let merged = merge(&id(), &plain(), &image).unwrap();
    assert_eq!(
        (merged.process.user.as_str(), merged.process.cwd.as_str()),
        ("www:www", "/srv/app")
    );
    assert_eq!(merged.config.stop_signal.unwrap().to_string(), "SIGQUIT");
    let options = CreateOptions {
        user: Some("0".into()),
        workdir: Some("/tmp".into()),
        labels: [("b".to_owned(), "2".to_owned())].into(),
        stop_signal: Some(Signal::INT),
        ..plain()
    };
    let merged = merge(&id(), &options, &image).unwrap();
    assert_eq!(
        (merged.process.user.as_str(), merged.process.cwd.as_str()),
        ("0", "/tmp")
    );
    assert_eq!(merged.config.stop_signal, Some(Signal::INT));
    let labels: Vec<_> = merged
        .config
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(labels, ["a=1", "b=2"]);
    let none = merge(&id(), &plain(), &ImageConfig::default()).unwrap();
    assert_eq!(
        (none.process.cwd.as_str(), none.config.workdir.as_str()),
        ("/", "")
    );
}

#[test]
fn an_image_with_nonsense_is_refused_in_words() {
    let relative = ConfigBuilder::default().working_dir("srv").build().unwrap();
    assert_eq!(
        merge(&id(), &plain(), &relative).unwrap_err().to_string(),
        "the working directory 'srv' is invalid, it needs to be an absolute path"
    );
    let signal = ConfigBuilder::default()
        .stop_signal("SIGFOO")
        .build()
        .unwrap();
    assert!(matches!(
        merge(&id(), &plain(), &signal),
        Err(OptionError::StopSignal(_))
    ));
}

#[test]
fn host_names_are_checked() {
    for good in ["a", "web-1", "db.example.org", "a_b"] {
        assert_eq!(hostname(Some(good), &id()).unwrap(), good);
    }
    assert_eq!(hostname(Some(""), &id()).unwrap(), "abababababab");
    let long = "a".repeat(64);
    for bad in ["-a", "a-", "a..b", "a b", "é", "a/b", long.as_str(), "."] {
        assert!(hostname(Some(bad), &id()).is_err(), "{bad}");
    }
}

#[test]
fn streams_are_attached_unless_detached() {
    let with = |interactive, detach| {
        let options = CreateOptions {
            interactive,
            detach,
            ..plain()
        };
        let config = merge(&id(), &options, &ImageConfig::default())
            .unwrap()
            .config;
        (config.open_stdin, config.attach_stdin, config.attach_output)
    };
    assert_eq!(with(true, false), (true, true, true));
    assert_eq!(with(true, true), (true, false, false));
    assert_eq!(with(false, false), (false, false, true));
}
