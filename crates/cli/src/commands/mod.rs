//! One file per verb, and the table of them all. Only what works is here.

mod attach;
mod bootstrap;
mod complete;
mod completion;
mod container_prune;
mod create;
mod create_flags;
mod doctor;
mod exec;
mod foreground;
mod gen_man;
mod history;
mod image_prune;
mod images;
mod import;
mod info;
mod inspect;
mod kill;
mod load;
mod logs;
mod ps;
mod pull;
mod push;
mod restart;
mod rm;
mod rmi;
mod run;
mod save;
mod several;
mod start;
mod stop;
mod tag;
mod version;
mod wait;

use crate::args::{Group, Heading, Verb};
use Heading::{Common, Hidden, Other};

/// Verbs at the top.
pub static VERBS: &[Verb] = &[
    Verb::new::<run::Run>("run", Common),
    Verb::new::<exec::Exec>("exec", Common),
    Verb::new::<ps::Ps>("ps", Common),
    Verb::new::<bootstrap::Bootstrap>("bootstrap", Common),
    Verb::new::<pull::Pull>("pull", Common),
    Verb::new::<push::Push>("push", Common),
    Verb::new::<images::Images>("images", Common),
    Verb::new::<version::Version>("version", Common),
    Verb::new::<info::Info>("info", Common),
    Verb::new::<doctor::Doctor>("doctor", Common),
    Verb::new::<attach::Attach>("attach", Other),
    Verb::new::<completion::Completion>("completion", Other),
    Verb::new::<create::Create>("create", Other),
    Verb::new::<history::History>("history", Other),
    Verb::new::<import::Import>("import", Other),
    Verb::new::<inspect::Inspect>("inspect", Other),
    Verb::new::<kill::Kill>("kill", Other),
    Verb::new::<load::Load>("load", Other),
    Verb::new::<logs::Logs>("logs", Other),
    Verb::new::<restart::Restart>("restart", Other),
    Verb::new::<rm::Rm>("rm", Other),
    Verb::new::<rmi::Rmi>("rmi", Other),
    Verb::new::<save::Save>("save", Other),
    Verb::new::<start::Start>("start", Other),
    Verb::new::<stop::Stop>("stop", Other),
    Verb::new::<tag::Tag>("tag", Other),
    Verb::new::<wait::Wait>("wait", Other),
    Verb::new::<complete::Complete>("__complete", Hidden),
    Verb::new::<gen_man::GenMan>("gen-man", Hidden),
];

/// Verbs grouped by what they are about, as Docker groups them.
pub static GROUPS: &[Group] = &[
    Group {
        name: "container",
        about: "Manage containers",
        verbs: &[
            Verb::new::<attach::Attach>("attach", Other),
            Verb::new::<create::Create>("create", Other),
            Verb::new::<exec::Exec>("exec", Other),
            Verb::new::<inspect::ContainerInspect>("inspect", Other),
            Verb::new::<kill::Kill>("kill", Other),
            Verb::new::<logs::Logs>("logs", Other),
            Verb::new::<ps::Ps>("ls", Other).alias(&["list", "ps"]),
            Verb::new::<container_prune::ContainerPrune>("prune", Other),
            Verb::new::<restart::Restart>("restart", Other),
            Verb::new::<rm::Rm>("rm", Other).alias(&["remove"]),
            Verb::new::<run::Run>("run", Other),
            Verb::new::<start::Start>("start", Other),
            Verb::new::<stop::Stop>("stop", Other),
            Verb::new::<wait::Wait>("wait", Other),
        ],
    },
    Group {
        name: "image",
        about: "Manage images",
        verbs: &[
            Verb::new::<bootstrap::Bootstrap>("bootstrap", Other),
            Verb::new::<history::History>("history", Other),
            Verb::new::<import::Import>("import", Other),
            Verb::new::<inspect::ImageInspect>("inspect", Other),
            Verb::new::<load::Load>("load", Other),
            Verb::new::<images::Images>("ls", Other).alias(&["list"]),
            Verb::new::<image_prune::ImagePrune>("prune", Other),
            Verb::new::<pull::Pull>("pull", Other),
            Verb::new::<push::Push>("push", Other),
            Verb::new::<rmi::Rmi>("rm", Other).alias(&["remove"]),
            Verb::new::<save::Save>("save", Other),
            Verb::new::<tag::Tag>("tag", Other),
        ],
    },
];
