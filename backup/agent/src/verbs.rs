//! What each verb does.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cairn_jobs::archive::{Catalogue, Range, verify_journal};
use cairn_jobs::cli::{Session, human_bytes};
use cairn_jobs::{
    Backup, BackupManifest, CreateOptions, JobError, Prepared, RealDisk, Repository, Tier, Verdict,
    VerifyOptions,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::export::export;
use crate::keys;
use crate::options::{Cli, KeyVerb, Verb};
use crate::server::{Persistence, Server};

pub(crate) async fn run(session: Arc<Session>, cli: Cli) -> Result<u8, JobError> {
    match &cli.verb {
        Verb::Create => create(&session, &cli).await,
        Verb::List => list(&session, &cli).await,
        Verb::Verify => verify(&session, &cli).await,
        Verb::Run(args) => crate::run::run(&session, &cli, args).await,
        Verb::Rewrap => keys::rewrap(&session, &cli).await,
        Verb::Export(options) => export(&session, &cli, options).await,
        Verb::Key { verb: KeyVerb::Generate { out } } => keys::generate(&session, out.clone()),
        Verb::Key { verb: KeyVerb::Rotate } => keys::rotate(&session, &cli),
        // Printed before a session begins.
        Verb::Completions { .. } => Ok(0),
    }
}

/// A backup as `create` and `list` show it.
#[derive(Serialize)]
struct Shown<'a> {
    backup: &'a str,
    lineage: &'a str,
    created: String,
    created_unix_ms: u64,
    encrypted: bool,
    keys: &'a [String],
    from_lsn: u64,
    to_lsn: u64,
    entries: u64,
    objects: usize,
    bytes: u64,
}

impl<'a> Shown<'a> {
    fn new(manifest: &'a BackupManifest) -> Self {
        Self {
            backup: &manifest.id,
            lineage: &manifest.lineage,
            created: manifest.created(),
            created_unix_ms: manifest.created_unix_ms,
            encrypted: manifest.encrypted,
            keys: &manifest.keys,
            from_lsn: manifest.from_lsn,
            to_lsn: manifest.to_lsn,
            entries: manifest.entries,
            objects: manifest.objects.len(),
            bytes: manifest.bytes(),
        }
    }
}

async fn create(session: &Arc<Session>, cli: &Cli) -> Result<u8, JobError> {
    let started = Instant::now();
    let dir = cli
        .dir
        .clone()
        .ok_or_else(|| JobError::Usage("create needs --dir DATA (or CAIRN_DIR)".to_owned()))?;
    let keyring = session.keyring(&cli.common).await?;
    let store = session.store(&cli.common).await?;
    let url = store.url().to_owned();
    // A store that cannot be reached shall not cost a snapshot.
    let repository = match Repository::open(Arc::clone(&store)).await {
        Err(error) if cli.dry_run && error.exit_code() == 10 => None,
        Err(error) if error.exit_code() != 10 => return Err(error),
        Err(_) => Some(Repository::init(store).await?),
        Ok(repository) => Some(repository),
    };
    let told = ask_server(cli).await?;
    let options = CreateOptions {
        dir: dir.clone(),
        disk: Arc::new(RealDisk),
        keyring,
        durable_lsn: told.as_ref().and_then(|told| told.durable_lsn),
    };
    let prepared = Prepared::new(options).await?;
    if let (Some(told), Some(server)) = (&told, &cli.server) {
        is_its_directory(told, server, &prepared, &dir)?;
    }
    let manifest = match (cli.dry_run, &repository) {
        (false, Some(repository)) => prepared.upload(repository, session.progress()).await?,
        _ => prepared.check(session.progress()).await?,
    };
    let seconds = started.elapsed().as_secs_f64();
    let document = with(
        &Shown::new(&manifest),
        json!({"result": "ok", "repository": url, "dry_run": cli.dry_run, "seconds": seconds}),
    )?;
    session.result(&document, || {
        let verb = if cli.dry_run { "would make" } else { "made" };
        let (objects, bytes) = (manifest.objects.len(), human_bytes(manifest.bytes()));
        format!(
            "{verb} backup {} in {url}: {objects} objects, {bytes}, LSN {}, {seconds:.1} s",
            manifest.id, manifest.to_lsn
        )
    })?;
    Ok(0)
}

/// Has the server take a snapshot if one is named, and gives what it says then.
async fn ask_server(cli: &Cli) -> Result<Option<Persistence>, JobError> {
    let Some(address) = &cli.server else { return Ok(None) };
    let password = std::env::var("CAIRN_SERVER_PASSWORD").ok().filter(|password| !password.is_empty());
    let mut server = Server::connect(address, password.as_deref()).await?;
    server.need_journal().await?;
    if cli.dry_run { Ok(None) } else { server.snapshot().await.map(Some) }
}

/// Refuses the directory of another server: its backup would be taken for this one's.
fn is_its_directory(
    told: &Persistence,
    server: &str,
    prepared: &Prepared,
    dir: &Path,
) -> Result<(), JobError> {
    let found = prepared.manifest();
    let why = match (&told.lineage, told.snapshot_lsn) {
        (Some(lineage), _) if *lineage != found.lineage => {
            format!("its data is of lineage {lineage}, that in {} of {}", dir.display(), found.lineage)
        }
        (_, Some(lsn)) if found.from_lsn < lsn => {
            format!("its snapshot is at LSN {lsn}, the one in {} at {}", dir.display(), found.from_lsn)
        }
        _ => return Ok(()),
    };
    Err(JobError::Server {
        server: server.to_owned(),
        why: format!("{why}: that is not the directory of this server"),
    })
}

async fn list(session: &Arc<Session>, cli: &Cli) -> Result<u8, JobError> {
    let repository = Repository::open(session.store(&cli.common).await?).await?;
    let catalogue = Catalogue::read(&repository).await?;
    let ranges = catalogue.ranges();
    let mut backups: Vec<Backup> =
        catalogue.lineages.into_iter().flat_map(|lineage| lineage.backups).collect();
    backups.sort_by(|a, b| (&a.id, &a.folder).cmp(&(&b.id, &b.folder)));
    let faults = |backup: &&Backup| backup.manifest.is_err();
    let code = backups.iter().filter(faults).map(|_| 13).max().unwrap_or(0);
    let shown = backups.iter().map(shown).collect::<Result<Vec<_>, _>>()?;
    let result = if code == 0 { "ok" } else { "damaged" };
    let document =
        json!({"result": result, "repository": repository.url(), "backups": shown, "ranges": ranges});
    session.result(&document, || table(&repository, &backups, &ranges))?;
    for backup in &backups {
        if let Err(error) = &backup.manifest {
            eprintln!("cairn-backup: {error}");
        }
    }
    Ok(code)
}

fn shown(backup: &Backup) -> Result<Value, JobError> {
    match &backup.manifest {
        Ok(manifest) => serde_json::to_value(Shown::new(manifest)).map_err(JobError::Json),
        Err(error) => Ok(json!({"backup": backup.id, "damaged": error.to_string()})),
    }
}

fn table(repository: &Repository, backups: &[Backup], ranges: &[Range]) -> String {
    if backups.is_empty() {
        return format!("{} holds no backup yet", repository.url());
    }
    let mut lines =
        vec![format!("{:<42} {:<24} {:>12} {:>12}  {}", "BACKUP", "CREATED", "SIZE", "KEYS", "ENCRYPTED")];
    for backup in backups {
        lines.push(match &backup.manifest {
            Ok(manifest) => format!(
                "{:<42} {:<24} {:>12} {:>12}  {}",
                backup.id,
                manifest.created(),
                human_bytes(manifest.bytes()),
                manifest.entries,
                if manifest.encrypted { manifest.keys.join(", ") } else { "no".to_owned() }
            ),
            Err(_) => format!("{:<42} damaged", backup.id),
        });
    }
    if !ranges.is_empty() {
        lines.push(String::new());
        lines.push(format!(
            "{:<26} {:<26} {:>15} {:>15}  {}",
            "RESTORABLE FROM", "TO", "FROM LSN", "TO LSN", "LINEAGE"
        ));
    }
    for range in ranges {
        // A range of LSNs without a moment of which all is certain to be there.
        let known = range.from_unix_ms <= range.to_unix_ms;
        let to = if known { range.to.as_str() } else { "-" };
        lines.push(format!(
            "{:<26} {to:<26} {:>15} {:>15}  {}",
            range.from, range.from_lsn, range.to_lsn, range.lineage
        ));
    }
    lines.join("\n")
}

async fn verify(session: &Arc<Session>, cli: &Cli) -> Result<u8, JobError> {
    let keyring = session.keyring(&cli.common).await?;
    let repository = Repository::open(session.store(&cli.common).await?).await?;
    let url = repository.url().to_owned();
    let mut lineages = Catalogue::read(&repository).await?.lineages;
    let mut backups: Vec<Backup> =
        lineages.iter_mut().flat_map(|lineage| std::mem::take(&mut lineage.backups)).collect();
    backups.sort_by(|a, b| (&a.id, &a.folder).cmp(&(&b.id, &b.folder)));
    if let Some(id) = &cli.backup {
        backups.retain(|backup| backup.id == *id);
        lineages.clear();
        if backups.is_empty() {
            return Err(JobError::NoSuchBackup { url, id: id.clone() });
        }
    }
    lineages.retain(|lineage| !lineage.segments.is_empty());
    if backups.is_empty() && lineages.is_empty() {
        return Err(JobError::NoBackups { url });
    }
    let scratch = cli.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let options = VerifyOptions { disk: Arc::new(RealDisk), keyring, scratch };
    let mut verdicts = Vec::new();
    for backup in &backups {
        verdicts.push(cairn_jobs::verify(&repository, backup, &options, session.progress()).await?);
    }
    for lineage in &lineages {
        verdicts.push(verify_journal(&repository, lineage, &options, session.progress()).await?);
    }
    let code = verdicts.iter().map(|verdict| verdict.exit_code).max().unwrap_or(0);
    let result = match code {
        0 => "ok",
        12 => "wrong key",
        _ => "damaged",
    };
    let document = json!({"result": result, "repository": url, "backups": verdicts});
    session.result(&document, || verdicts.iter().map(verdict_line).collect::<Vec<_>>().join("\n"))?;
    for fault in verdicts.iter().flat_map(|verdict| &verdict.faults) {
        eprintln!("cairn-backup: {fault}");
    }
    Ok(code)
}

fn verdict_line(verdict: &Verdict) -> String {
    let proven = match (verdict.ok, verdict.tier) {
        (false, _) if verdict.exit_code == 12 => "not read: this keyring does not open it",
        (false, _) => "NOT WHOLE",
        (true, Tier::Contents) => "whole, contents read",
        (true, _) => "whole by its checksums; give the key to have it decrypted",
    };
    format!("{}: {proven} ({} objects, {})", verdict.backup, verdict.objects, human_bytes(verdict.bytes))
}

/// A document with more fields.
pub(crate) fn with(document: &impl Serialize, more: Value) -> Result<Value, JobError> {
    let mut document = serde_json::to_value(document).map_err(JobError::Json)?;
    if let (Some(fields), Value::Object(more)) = (document.as_object_mut(), more) {
        fields.extend(more);
    }
    Ok(document)
}
