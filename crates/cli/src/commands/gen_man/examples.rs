//! Examples for the man pages. A test parses each, so that none shows what the program refuses.

/// Command line and what it does.
pub type Example = (&'static str, &'static str);

/// The examples of the page `bulkhead-…`, by the words of the command.
pub fn of(command: &str) -> &'static [Example] {
    let found = EXAMPLES.iter().find(|(names, _)| names.contains(&command));
    found.map_or(&[], |(_, examples)| examples)
}

#[rustfmt::skip]
const EXAMPLES: &[(&[&str], &[Example])] = &[
    (&[""], &[
        ("bulkhead bootstrap bookworm debian:bookworm", "Make an image from Debian's packages"),
        ("bulkhead run --rm -it debian:bookworm bash", "Run a shell in a container with a kernel of its own"),
        ("bulkhead doctor", "See what this host lacks"),
    ]),
    (&["container"], &[("bulkhead container ls -a", "List all containers")]),
    (&["image"], &[("bulkhead image prune", "Remove the images that lost their names")]),
    (&["attach", "container attach"], &[
        ("bulkhead attach web", "Connect the terminal to a running container; Ctrl-P Ctrl-Q leaves it"),
        ("bulkhead attach --no-stdin web", "Only watch"),
    ]),
    (&["bootstrap", "image bootstrap"], &[
        ("bulkhead bootstrap bookworm debian:bookworm", "Make an image of Debian 12"),
        ("bulkhead bootstrap --include=python3,ca-certificates bookworm tools", "With further packages"),
    ]),
    (&["completion"], &[
        ("bulkhead completion bash", "Print the script for bash; 'source <(bulkhead completion bash)' uses it at once"),
    ]),
    (&["create", "container create"], &[
        ("bulkhead create --name web -m 256m debian:bookworm sleep 1000", "Make a container without starting it"),
        ("bulkhead create -it debian:bookworm", "One with a terminal, for 'bulkhead start -ai'"),
    ]),
    (&["doctor"], &[
        ("bulkhead doctor", "Check the host, with a remedy for whatever is missing"),
        ("bulkhead doctor --format json", "For programs"),
    ]),
    (&["exec", "container exec"], &[
        ("bulkhead exec -it web sh", "Open a shell in a running container"),
        ("bulkhead exec -u 1000 -w /tmp web id", "Run a command as another user, elsewhere"),
    ]),
    (&["history", "image history"], &[
        ("bulkhead history --no-trunc debian:bookworm", "Show how an image was made"),
    ]),
    (&["images", "image ls"], &[
        ("bulkhead images", "List the images"),
        ("bulkhead images -q --filter dangling=true", "The identifiers of those without a name"),
    ]),
    (&["import", "image import"], &[
        ("bulkhead import rootfs.tar.gz mine:1", "Make an image of a root file system"),
        ("bulkhead import -c 'CMD [\"sh\"]' - mine:2", "Read it from standard input, and set its command"),
    ]),
    (&["info"], &[
        ("bulkhead info", "Show the state of the whole"),
        ("bulkhead info --format '{{.ImageStore}}'", "Show where the images are"),
    ]),
    (&["inspect"], &[
        ("bulkhead inspect web", "Show everything about a container, as JSON"),
        ("bulkhead inspect --type image -f '{{.Id}}' debian:bookworm", "One field of an image"),
    ]),
    (&["container inspect"], &[
        ("bulkhead container inspect -f '{{.State.Status}}' web", "Show whether a container runs"),
    ]),
    (&["image inspect"], &[
        ("bulkhead image inspect -f '{{json .Config.Cmd}}' debian:bookworm", "Show an image's command"),
    ]),
    (&["kill", "container kill"], &[
        ("bulkhead kill web", "End a container at once"),
        ("bulkhead kill -s HUP web", "Send it a signal"),
    ]),
    (&["load", "image load"], &[
        ("bulkhead load -i images.tar", "Load what 'bulkhead save' or 'docker save' wrote"),
    ]),
    (&["logs", "container logs"], &[
        ("bulkhead logs -f --tail 10 web", "Show the last ten lines and go on"),
        ("bulkhead logs --since 10m -t web", "Show the last ten minutes, with times"),
        ("bulkhead logs --kernel web", "Show what the container's kernel wrote to its console"),
    ]),
    (&["ps", "container ls"], &[
        ("bulkhead ps -a", "List all containers"),
        ("bulkhead ps -aq --filter status=exited", "The identifiers of those that have ended"),
        ("bulkhead ps --format '{{.Names}} {{.Status}}'", "In a form of one's own"),
    ]),
    (&["container prune"], &[
        ("bulkhead container prune -f --filter until=24h", "Remove what does not run and is older than a day"),
    ]),
    (&["image prune"], &[
        ("bulkhead image prune -a", "Remove every image that no container uses"),
    ]),
    (&["pull", "image pull"], &[
        ("bulkhead pull debian:bookworm", "Download an image"),
    ]),
    (&["push", "image push"], &[
        ("bulkhead push localhost:5000/mine:1", "Upload an image to a registry on this host"),
    ]),
    (&["restart", "container restart"], &[
        ("bulkhead restart -t 5 web", "Stop a container, with five seconds to end, and start it"),
    ]),
    (&["rm", "container rm"], &[
        ("bulkhead rm web", "Remove a container that does not run"),
        ("bulkhead rm -f web", "Remove it even if it runs"),
    ]),
    (&["rmi", "image rm"], &[
        ("bulkhead rmi mine:1", "Take a name from an image, and remove it with its last name"),
    ]),
    (&["run", "container run"], &[
        ("bulkhead run --rm -it debian:bookworm bash", "Run a shell, and remove the container afterwards"),
        ("bulkhead run -d --name web -m 256m debian:bookworm sleep 1000", "Run in the background, with a memory limit"),
        ("bulkhead run --rm --isolation user-mode debian:bookworm uname -r", "Choose how the kernel is run"),
    ]),
    (&["save", "image save"], &[
        ("bulkhead save -o mine.tar mine:1", "Write an image to an archive that 'docker load' reads"),
        ("bulkhead save --format oci-dir -o layout mine:1", "To an OCI image layout"),
    ]),
    (&["start", "container start"], &[
        ("bulkhead start web", "Start a container that does not run"),
        ("bulkhead start -ai web", "Start it and connect the terminal"),
    ]),
    (&["stop", "container stop"], &[
        ("bulkhead stop -t 30 web", "Ask a container to end, and kill it after thirty seconds"),
    ]),
    (&["tag", "image tag"], &[
        ("bulkhead tag mine:1 localhost:5000/mine:1", "Give an image another name"),
    ]),
    (&["version"], &[
        ("bulkhead version", "Show the versions of program, kernel and agent"),
    ]),
    (&["wait", "container wait"], &[
        ("bulkhead wait web", "Wait for a container's end and print its exit code"),
    ]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Line, parse};

    #[test]
    fn every_example_is_accepted_by_the_verb_it_is_for() {
        for (names, examples) in EXAMPLES {
            assert!(!examples.is_empty(), "{names:?}");
            for (line, text) in *examples {
                // A trailing space completes the last word.
                let words = Line::parse(&format!("{line} ")).words;
                let words: Vec<_> = std::iter::once("bulkhead".to_owned())
                    .chain(words)
                    .map(Into::into)
                    .collect();
                let parsed =
                    parse(&words).unwrap_or_else(|complaint| panic!("{line}: {}", complaint.text));
                let verb = parsed.expect("no help").verb.name;
                let is_for = names
                    .iter()
                    .any(|name| name.split(' ').next_back() == Some(verb));
                assert!(
                    is_for || names[0].is_empty() || names.len() == 1,
                    "{line} is on the page of {names:?}"
                );
                assert!(!text.is_empty());
            }
        }
    }
}
