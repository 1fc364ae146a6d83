//! Expected texts were printed by docker 28.2 for the same data.

use super::*;

fn row() -> Value {
    let map = |entries: &[(&str, &str)]| {
        Value::Map(
            entries
                .iter()
                .map(|(k, v)| ((*k).to_owned(), Value::from(*v)))
                .collect(),
        )
    };
    let mut row = map(&[
        ("ID", "aaaaaaaaaaaa"),
        ("Names", "web"),
        ("State", "running"),
        ("Labels", "a=b,k=v"),
    ]);
    if let Value::Map(members) = &mut row {
        members.push((
            "Label".to_owned(),
            Value::Lookup(vec![("k".to_owned(), "v".to_owned())]),
        ));
        members.push(("Platform".to_owned(), Value::Null));
    }
    row
}

fn inspect() -> Value {
    serde_json::from_str(
        r#"{"Id":"aaaa","Args":["-c","true"],"State":{"Status":"running","Running":true,"Pid":12},
            "Name":"/web","Config":{"Env":["A=1","B=2"],"Labels":{"z":"1","a.b":"2"},"Entrypoint":null},
            "HostConfig":{"Memory":536870912,"Max":18446744073709551615},"Mounts":[{"Destination":"/data"}]}"#,
    )
    .unwrap()
}

fn show(template: &str, data: &Value) -> String {
    match Template::parse(template).and_then(|t| t.render(data, Functions::Data)) {
        Ok(text) => text,
        Err(error) => format!("! {error}"),
    }
}

fn check(data: &Value, cases: &[(&str, &str)]) {
    for (template, expected) in cases {
        assert_eq!(show(template, data), *expected, "{template}");
    }
}

#[test]
fn rows_print_as_docker_prints_them() {
    check(
        &row(),
        &[
            ("{{.ID}} {{.Names}}", "aaaaaaaaaaaa web"),
            ("{{json .Names}}", "\"web\""),
            (
                "{{.Label \"k\"}}|{{.Label \"x\"}}|{{\"k\" | .Label}}",
                "v||v",
            ),
            (
                "{{upper .Names}} {{title .Names}} {{pad .Names 2 3}}|",
                "WEB Web   web   |",
            ),
            (
                "{{truncate .ID 3}} {{split .Labels \",\"}}",
                "aaa [a=b k=v]",
            ),
            ("{{join (split .Labels \",\") \"/\"}}", "a=b/k=v"),
            (
                "{{len .Names}} {{printf \"%-9s|%9s|%q\" .Names .State .State}}",
                "3 web      |  running|\"running\"",
            ),
            (
                "{{range $i, $e := split .Labels \",\"}}{{$i}}={{$e}};{{end}}",
                "0=a=b;1=k=v;",
            ),
            ("{{with .Labels}}{{.}}{{else}}none{{end}}", "a=b,k=v"),
            ("{{println .ID .Names}}", "aaaaaaaaaaaa web\n"),
            ("{{print 1 2 \"a\" \"b\" 3 true}}", "1 2ab3 true"),
            ("{{ 1 | printf \"%d %s\" 2}}", "2 %!s(int=1)"),
            (
                "{{eq .State \"x\" \"running\"}} {{lt 1 2}} {{ne 1 2}}",
                "true true true",
            ),
            (
                "{{and .ID .Names}} {{or \"\" .ID}} {{not .ID}}",
                "web aaaaaaaaaaaa false",
            ),
            ("{{/* c */}}a {{- .Names -}}  x", "awebx"),
            ("{{.Platform}}", "<nil>"),
            ("{{1.5}} {{0x10}} {{true}} {{-3}}", "1.5 16 true -3"),
            (
                "{{html \"<a>\"}} {{js \"x\"}} {{urlquery \"a b\"}}",
                "&lt;a&gt; x a+b",
            ),
            ("{{'a'}} {{printf \"%c\" 97}} {{`raw\\n`}}", "97 a raw\\n"),
            (
                "{{printf \"%5.2f|%x|%X|%t|%08d|%+d|%T\" 3.14159 255 \"hi\" true 42 5 \"s\"}}",
                " 3.14|ff|6869|true|00000042|+5|string",
            ),
            ("{{printf \"%v %v\" .ID}}", "aaaaaaaaaaaa %!v(MISSING)"),
            (
                "{{if eq .State \"exited\"}}down{{else if eq .State \"running\"}}up{{else}}?{{end}}",
                "up",
            ),
            (
                "{{$x := .ID}}{{with .State}}{{$x}} {{.}} {{$.Names}}{{end}}",
                "aaaaaaaaaaaa running web",
            ),
            (
                "{{$n := 0}}{{range split \"abc\" \"\"}}{{if eq . \"b\"}}{{continue}}{{end}}{{$n = .}}{{end}}{{$n}}",
                "c",
            ),
            (
                "{{range split \"abc\" \"\"}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}",
                "a",
            ),
            (
                "{{range split \"\" \"\"}}x{{else}}nothing{{end}}",
                "nothing",
            ),
        ],
    );
}

#[test]
fn inspect_data_prints_as_docker_prints_it() {
    check(
        &inspect(),
        &[
            ("{{.State.Running}} {{.State.Pid}}", "true 12"),
            ("{{.Config.Env}}", "[A=1 B=2]"),
            ("{{json .Config.Env}}", "[\"A=1\",\"B=2\"]"),
            ("{{.Config.Labels}}", "map[a.b:2 z:1]"),
            ("{{index .Config.Labels \"a.b\"}}", "2"),
            ("{{index .Config.Labels \"nope\"}}|", "|"),
            ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
            ("{{.HostConfig.Memory}}", "536870912"),
            (
                "{{json .HostConfig}}",
                "{\"Memory\":536870912,\"Max\":18446744073709551615}",
            ),
            ("{{json .Config.Entrypoint}}", "null"),
            ("{{range .Mounts}}{{.Destination}}{{end}}", "/data"),
            (
                "{{range $k,$v := .Config.Labels}}{{$k}}={{$v}} {{end}}",
                "a.b=2 z=1 ",
            ),
            ("{{index .Args 1}}", "true"),
            ("{{(index .Mounts 0).Destination}}", "/data"),
            ("{{.ID}} {{.Id}} {{.Name | upper}}", "aaaa aaaa /WEB"),
            ("{{slice .Args 0 1}} {{slice .Name 1}}", "[-c] web"),
            ("{{join .Args \"+\"}} {{len .Args}}", "-c+true 2"),
            ("{{with .State}}{{.Pid}}{{end}} {{$.Name}}", "12 /web"),
            ("{{eq .State.Pid 12}}", "true"),
            ("{{print .Args .Config.Labels}}", "[-c true] map[a.b:2 z:1]"),
            (
                "{{printf \"%v %q %s\" .Args .Args .Args}}",
                "[-c true] [\"-c\" \"true\"] [-c true]",
            ),
            ("{{printf \"%d\" \"x\"}}", "%!d(string=x)"),
        ],
    );
}

#[test]
fn parse_errors_have_gos_words() {
    check(
        &row(),
        &[
            ("{{.foo", "! template: :1: unclosed action"),
            ("{{foo}}", "! template: :1: function \"foo\" not defined"),
            ("{{if .ID}}x", "! template: :1: unexpected EOF"),
            ("{{end}}", "! template: :1: unexpected {{end}}"),
            ("{{else}}", "! template: :1: unexpected {{else}}"),
            ("{{}}", "! template: :1: missing value for command"),
            ("{{\"a}}", "! template: :1: unterminated quoted string"),
            ("{{$x}}", "! template: :1: undefined variable \"$x\""),
            ("\n{{break}}", "! template: :2: {{break}} outside {{range}}"),
        ],
    );
}

#[test]
fn execution_errors_name_the_place() {
    check(
        &inspect(),
        &[
            (
                "{{.Foo}}",
                "! template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\"",
            ),
            (
                "{{.State.Foo}}",
                "! template: :1:8: executing \"\" at <.State.Foo>: map has no entry for key \"Foo\"",
            ),
            (
                "{{index .Args 5}}",
                "! template: :1:2: executing \"\" at <index .Args 5>: error calling index: index out of range: 5",
            ),
            (
                "{{.Id.Foo}}",
                "! template: :1:5: executing \"\" at <.Id.Foo>: can't evaluate field Foo in type string",
            ),
            (
                "{{nil}}",
                "! template: :1:2: executing \"\" at <nil>: nil is not a command",
            ),
            (
                "{{lt 1 \"a\"}}",
                "! template: :1:2: executing \"\" at <lt 1 \"a\">: error calling lt: incompatible types for comparison",
            ),
            (
                "{{len 3}}",
                "! template: :1:2: executing \"\" at <len 3>: error calling len: len of type int",
            ),
            (
                "{{.Id | truncate 3}}",
                "! template: :1:17: executing \"\" at <3>: expected string; found 3",
            ),
        ],
    );
}

#[test]
fn headings_are_not_reshaped() {
    let headings = Value::Map(vec![("Names".to_owned(), Value::from("NAMES"))]);
    let template =
        Template::parse("{{lower .Names}} {{truncate .Names 2}} {{json .Names}}").unwrap();
    assert_eq!(
        template.render(&headings, Functions::Header).unwrap(),
        "NAMES NAMES NAMES"
    );
}

#[test]
fn json_escapes_markup_as_go_does() {
    assert_eq!(
        Value::from("<none> & co").to_json(),
        "\"\\u003cnone\\u003e \\u0026 co\""
    );
}

#[test]
fn hostile_templates_end_with_an_error_not_a_crash() {
    let deep = "{{".to_owned() + &"(".repeat(5000);
    let nested = "{{if .ID}}".repeat(5000);
    for template in [
        deep.as_str(),
        nested.as_str(),
        "{{printf \"%99999999999999999999d\" 1}}{{",
        "{{.}}}}{{-",
        "{{/*",
        "{{- -}}",
        "{{pad}}",
        "{{index}}",
        "{{é.ö}}",
        "{{'\\",
        "{{\"\\x\"}}",
        "{{$a, $b := 1}}",
        "{{1 | 2}}",
        "{{0x}}",
        "{{99999999999999999999999999999999999999999}}",
    ] {
        assert!(
            show(template, &row()).starts_with('!'),
            "{}",
            &template[..template.len().min(40)]
        );
    }
    assert_eq!(show("{{printf \"%9999999d\" 1}}", &row()).len(), 4096);
}
