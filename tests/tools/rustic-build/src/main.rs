//! rustic's engine (rustic_core) behind the words of its command line that the tests use. The program itself
//! brings clients for two dozen kinds of cloud, which take a compiler most of half an hour.

use std::{error::Error, io::stdout, path::PathBuf};

use clap::{Parser, Subcommand};
use rustic_backend::BackendOptions;
use rustic_core::{
    BackupOptions, CheckOptions, ConfigOptions, Credentials, KeyOptions, LocalDestination,
    LsOptions, PathList, PruneOptions, Repository, RepositoryOptions, RestoreOptions,
    SnapshotOptions, repofile::SnapshotFile,
};

#[derive(Parser)]
struct Words {
    #[clap(long, env = "RUSTIC_REPOSITORY")]
    repository: String,
    #[clap(long, env = "RUSTIC_PASSWORD")]
    password: String,
    /// There is none in any case; the options of `check` refer to it.
    #[clap(long, global = true)]
    no_cache: bool,
    #[clap(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Init(ConfigOptions),
    Backup { folder: String },
    Check(CheckOptions),
    Copy { target: String, id: String },
    Dump { place: String },
    Forget { ids: Vec<String> },
    Prune(PruneOptions),
    Restore { place: String, target: PathBuf },
    Tag { add: String, id: String },
}

type Done<T> = Result<T, Box<dyn Error>>;

fn at(place: &str) -> Done<Repository<()>> {
    let backends = BackendOptions::default().repository(place).to_backends()?;
    Ok(Repository::new(
        &RepositoryOptions::default().no_cache(true),
        &backends,
    )?)
}

fn main() -> Done<()> {
    let words = Words::parse();
    let credentials = Credentials::password(&words.password);
    let repository = at(&words.repository)?;
    if let Command::Init(options) = words.command {
        repository.init(&credentials, &KeyOptions::default(), &options)?;
        return Ok(());
    }
    let repository = repository.open(&credentials)?;
    match words.command {
        Command::Init(_) => {}
        Command::Backup { folder } => {
            let source = PathList::from_string(&folder)?;
            let options = BackupOptions::default().as_path(PathBuf::from("/"));
            let snapshot = SnapshotOptions::default().to_snapshot()?;
            let made = repository
                .to_indexed_ids()?
                .backup(&options, &source, snapshot)?;
            println!("{}", serde_json::to_string(&made)?);
        }
        Command::Check(options) => repository.check(options)?.is_ok()?,
        Command::Copy { target, id } => {
            let target = at(&target)?;
            let config = repository.config().clone();
            let target = match target.config_id()? {
                Some(_) => target.open(&credentials)?,
                None => target.init_with_config(&credentials, &KeyOptions::default(), config)?,
            };
            let snapshots = repository.get_snapshots(&[id])?;
            repository
                .to_indexed()?
                .copy(&target.to_indexed_ids()?, &snapshots)?;
        }
        Command::Dump { place } => {
            let repository = repository.to_indexed()?;
            let node = repository.node_from_snapshot_path(&place, |_| true)?;
            repository.dump(&node, &mut stdout().lock())?;
        }
        Command::Forget { ids } => {
            let ids: Vec<_> = repository
                .get_snapshots(&ids)?
                .iter()
                .map(|found| found.id)
                .collect();
            repository.delete_snapshots(&ids)?;
        }
        Command::Prune(options) => {
            let plan = repository.prune_plan(&options)?;
            repository.prune(&options, plan)?;
        }
        Command::Restore { place, target } => {
            let repository = repository.to_indexed()?;
            let node = repository.node_from_snapshot_path(&place, |_| true)?;
            let (options, listing) = (RestoreOptions::default(), LsOptions::default());
            let target =
                LocalDestination::new(target.to_str().ok_or("no text")?, true, !node.is_dir())?;
            let plan = repository.prepare_restore(
                &options,
                repository.ls(&node, &listing)?,
                &target,
                false,
            )?;
            repository.restore(plan, &options, repository.ls(&node, &listing)?, &target)?;
        }
        Command::Tag { add, id } => {
            let mut snapshots: Vec<SnapshotFile> = repository.get_snapshots(&[id])?;
            for snapshot in &mut snapshots {
                snapshot.tags.add(add.clone());
            }
            repository.save_snapshots(snapshots)?;
        }
    }
    Ok(())
}
