//! Master keys: making them, adding one, and bringing what is there under the newest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_jobs::cli::Session;
use cairn_jobs::{
    JobError, Keyring, RealDisk, Repository, RewrappedDirectory, rewrap_directory, rewrap_repository,
};
use serde_json::json;

use crate::options::Cli;
use crate::verbs::with;

pub(crate) fn generate(session: &Arc<Session>, out: PathBuf) -> Result<u8, JobError> {
    let failed = |source| JobError::Seal { place: "no keyring was written".to_owned(), source };
    let keyring = Keyring::generate().map_err(failed)?;
    keyring.write_new_file(&out).map_err(failed)?;
    let name = keyring.active().name();
    let document = json!({"result": "ok", "file": out, "key": name});
    session.result(&document, || {
        format!("wrote {} with the key {name}\nKeep a copy elsewhere: without it neither the data nor its backups can be read.", out.display())
    })?;
    Ok(0)
}

pub(crate) fn rotate(session: &Arc<Session>, cli: &Cli) -> Result<u8, JobError> {
    let file = cli.common.encryption_key_file.clone().ok_or_else(|| {
        let why = "key rotate needs --encryption-key-file FILE (or CAIRN_ENCRYPTION_KEY_FILE): the keyring that gets a new key";
        JobError::Usage(why.to_owned())
    })?;
    let place = file.display().to_string();
    let failed = |source| JobError::NoKeyring { place: place.clone(), source };
    let keyring = if cli.dry_run {
        Keyring::load_file(&file).and_then(|keyring| keyring.rotated())
    } else {
        Keyring::rotate_file(&file)
    }
    .map_err(failed)?;
    let names: Vec<&str> = keyring.names().collect();
    // In a dry run the name would be another one each time.
    let name = (!cli.dry_run).then(|| keyring.active().name());
    let document =
        json!({"result": "ok", "dry_run": cli.dry_run, "file": file, "key": name, "keys": names.len()});
    session.result(&document, || match name {
        None => {
            format!("would add a key to {place}, which has {}, and make it the active one", names.len() - 1)
        }
        Some(name) => {
            format!("added the key {name} to {place}, which makes it the active one\n{}", next_steps(&place))
        }
    })?;
    Ok(0)
}

fn next_steps(file: &str) -> String {
    format!(
        "Next:
  1. keep a copy of {file} elsewhere, and bring it to every machine that reads this data
  2. on each running server: CAIRN KEY RELOAD, then CAIRN KEY REWRAP; CAIRN KEY STATUS shows how far it is
     (for a directory at rest: cairn-backup --dir DIR --encryption-key-file {file} rewrap)
  3. for each repository: cairn-backup --repo URL --encryption-key-file {file} rewrap
  4. remove the lines of older keys only when CAIRN KEY LIST shows no file under them and 3. is done"
    )
}

pub(crate) async fn rewrap(session: &Arc<Session>, cli: &Cli) -> Result<u8, JobError> {
    let keyring = session.keyring(&cli.common).await?.ok_or_else(|| {
        JobError::Usage("rewrap needs the keyring, with the old keys and the new: give --encryption-key-file or --encryption-key-command".to_owned())
    })?;
    match (&cli.dir, &cli.common.repo) {
        (Some(dir), None) => rewrap_dir(session, cli, dir.clone(), keyring).await,
        (None, Some(_)) => rewrap_repo(session, cli, &keyring).await,
        (Some(_), Some(_)) => Err(JobError::Usage(
            "rewrap takes --dir or --repo (or CAIRN_DIR or CAIRN_REPO), one at a time".to_owned(),
        )),
        (None, None) => {
            Err(JobError::Usage("rewrap needs --repo URL, or --dir DIR for a data directory".to_owned()))
        }
    }
}

async fn rewrap_dir(
    session: &Arc<Session>,
    cli: &Cli,
    dir: PathBuf,
    keyring: Arc<Keyring>,
) -> Result<u8, JobError> {
    let (progress, dry_run) = (session.progress(), cli.dry_run);
    let work = move || rewrap_directory(&RealDisk, Path::new(&dir), &keyring, dry_run, &*progress);
    let done: RewrappedDirectory =
        tokio::task::spawn_blocking(work).await.map_err(|error| JobError::Task(error.to_string()))??;
    let document = with(&done, json!({"result": "ok", "dry_run": dry_run}))?;
    session.result(&document, || {
        let verb = if dry_run { "would bring" } else { "brought" };
        let RewrappedDirectory { dir, key, files, rewrapped } = &done;
        format!("{}: {verb} {rewrapped} of {files} files under the key {key}", dir.display())
    })?;
    Ok(0)
}

async fn rewrap_repo(session: &Arc<Session>, cli: &Cli, keyring: &Keyring) -> Result<u8, JobError> {
    let repository = Repository::open(session.store(&cli.common).await?).await?;
    let done = rewrap_repository(&repository, keyring, cli.dry_run, &*session.progress()).await?;
    let more = json!({"result": "ok", "repository": repository.url(), "dry_run": cli.dry_run});
    session.result(&with(&done, more)?, || {
        let verb = if cli.dry_run { "would bring" } else { "brought" };
        let (files, rewrapped, key) = (done.files, done.rewrapped, &done.key);
        format!("{}: {verb} {rewrapped} of {files} encrypted files under the key {key}", repository.url())
    })?;
    Ok(0)
}
