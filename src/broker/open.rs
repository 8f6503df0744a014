//! From a directory to shards: first start, adoption of a prototype's directory, recovery.
//!
//! Nothing is cut, moved or written before the whole write-ahead log was examined and found good;
//! a directory in doubt is refused with a reason, never started empty.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::disk::{self, Disk, Open};
use crate::ids::{GroupName, TopicName};
use crate::log::{self, LogError, LogMark, Scan, SegmentFile, TopicLog};
use crate::time::{Now, Timestamp};
use crate::wal::{self, Examined, Identity, Lsn, Torn, Wal, WalError};

use super::casing::Casing;
use super::checkpoint::Checkpoint;
use super::keeper::Checkpoints;
use super::layout::Layout;
use super::lock_file::{self, Held, Holder, Refused};
pub use super::open_error::OpenError;
use super::retention;
use super::settings::Settings;
use super::shard::{ALL_TOPICS, Shard, ShardError};
use super::topics::{Topics, Workshop};

/// The version of the directory's layout.
pub(super) const FORMAT: u32 = 1;

/// `.wiber/node.json`: who this directory is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    wiber: String,
    format: u32,
    /// Sixteen hex digits, drawn once.
    pub node: String,
    created: Timestamp,
    /// CRC-32C of what stands before it, as eight hex digits.
    crc: String,
}

impl Node {
    /// The identity of a directory that is served for the first time at `created`.
    pub(crate) fn new(node: u64, created: Timestamp) -> Self {
        let (wiber, node) = ("node".to_owned(), format!("{node:016x}"));
        let mut new = Self { wiber, format: FORMAT, node, created, crc: String::new() };
        new.crc = new.checksum();
        new
    }

    pub(crate) fn write(&self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        disk::replace(disk, path, &serde_json::to_vec(self).expect("text and numbers"))
    }

    fn checksum(&self) -> String {
        let Self { wiber, format, node, created, .. } = self;
        let text = format!("{wiber} {format} {node} {}", created.as_micros());
        format!("{:08x}", crc32c::crc32c(text.as_bytes()))
    }
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// An empty directory.
    New,
    /// Files of the prototype.
    Adopted {
        /// How many topics.
        topics: usize,
        /// How many messages.
        messages: u64,
        /// Torn last lines, which are in `.wiber/quarantine/` now.
        torn: usize,
    },
    /// The last stop was in order.
    Clean,
    /// The last stop was none: the log was applied again.
    Recovered {
        /// How many of its records.
        records: u64,
        /// What was cut from its end, in bytes.
        torn_bytes: u64,
    },
}

/// A directory that is ready to be served.
#[derive(Debug)]
pub struct Opened {
    /// The shards, in the order of their numbers.
    pub shards: Vec<Shard>,
    /// The log, at its end.
    pub wal: Wal,
    /// What was found.
    pub found: Found,
    /// The checkpoints, to go on with.
    pub checkpoints: Checkpoints,
    /// Held while the directory is served.
    pub lock: Held,
    /// The identity.
    pub node: Node,
}

/// Opens a data directory, creating or recovering it.
///
/// # Errors
/// [`OpenError`]; the directory is then as it was.
pub fn open(disk: &Arc<dyn Disk>, settings: &Settings, now: Now) -> Result<Opened, OpenError> {
    let layout = Layout::new(&settings.data_dir);
    let (checkpoints, quarantine, trash) =
        (layout.checkpoints(), layout.quarantine(), layout.trash());
    let folders = [layout.data.clone(), layout.meta.clone(), checkpoints, quarantine, trash];
    let is_served = disk.open(&layout.node(), Open::Read).is_ok();
    for folder in folders {
        // What is above the others is among them.
        let is_certain = is_served || folder != layout.data;
        create_durably(disk.as_ref(), &folder, is_certain)?;
    }
    let lock = lock_file::take(disk.as_ref(), &layout, Holder::Broker).map_err(|refused| {
        let path = layout.lock();
        match refused {
            Refused::Held(holder) => OpenError::Locked { path, holder },
            Refused::Io(source) => unusable(&path, source),
        }
    })?;
    disk.hold_dir(&layout.data).map_err(|source| unusable(&layout.data, source))?;
    retention::empty(disk.as_ref(), &layout.trash());
    let casing = Casing::of(disk.as_ref(), &layout).map(Arc::new);
    let opening = Opening { disk, settings, layout, now, lock, casing };
    let mut opened = match read_node(disk.as_ref(), &opening.layout)? {
        Some(node) => opening.reopen(node),
        None => opening.begin(),
    }?;
    // What the last life could not remove any more.
    for shard in &mut opened.shards {
        opened.checkpoints.will_remove(shard.take_trimmed());
    }
    Ok(opened)
}

struct Opening<'a> {
    disk: &'a Arc<dyn Disk>,
    settings: &'a Settings,
    layout: Layout,
    now: Now,
    lock: Held,
    casing: Option<Arc<Casing>>,
}

impl Opening<'_> {
    /// The first start in a directory, maybe one that the prototype wrote.
    fn begin(self) -> Result<Opened, OpenError> {
        if let Some(checkpoint) =
            Checkpoint::newest(self.disk.as_ref(), &self.layout.checkpoints())?
            && checkpoint.number > 1
        {
            let why = "it is missing, but the directory was served before".to_owned();
            return Err(OpenError::Damaged { path: self.layout.node(), why });
        }
        self.clear_unfinished_start()?;
        let mut shards = self.shards();
        let found = self.adopt(&mut shards)?;
        let node = Node::new(self.settings.node_seed, self.now.wall);
        let wal = Wal::create(
            Arc::clone(self.disk),
            &self.layout.wal(),
            Identity { node: self.settings.node_seed, secret: self.settings.wal_secret },
            self.settings.wal,
        )?;
        let last = wal.last();
        let parts = shards.iter_mut().map(|s| s.part(last, ALL_TOPICS));
        let parts: Option<Vec<_>> = parts.collect::<Result<_, _>>()?;
        let parts = parts.expect("nothing has to be written before a state without appends");
        let (checkpoint, syncs) = Checkpoint::of(1, false, parts);
        for mut sync in syncs {
            sync.run(self.disk.as_ref())?;
        }
        let folder = self.layout.checkpoints();
        checkpoint.write(self.disk.as_ref(), &folder, self.now.wall)?;
        // Written last: a directory without it was never served.
        let path = self.layout.node();
        node.write(self.disk.as_ref(), &path).map_err(|source| unusable(&path, source))?;
        self.disk
            .sync_dir(&self.layout.data)
            .map_err(|source| unusable(&self.layout.data, source))?;
        let checkpoints = Checkpoints::open(self.disk, &self.layout, self.now.moment)?;
        Ok(Opened { shards, wal, found, checkpoints, lock: self.lock, node })
    }

    /// Removes what a first start that was cut short left in the log's folder. A log with records
    /// is no such thing: then only the identity is missing.
    fn clear_unfinished_start(&self) -> Result<(), OpenError> {
        let folder = self.layout.wal();
        let entries = match self.disk.list(&folder) {
            Ok(entries) if !entries.is_empty() => entries,
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(unusable(&folder, source)),
        };
        let mut records = 0;
        match wal::examine(Arc::clone(self.disk), &folder, self.settings.wal, Lsn::default()) {
            Ok(examined) => examined.replay(&mut |_| {
                records += 1;
                Ok::<_, OpenError>(())
            })?,
            Err(WalError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if records > 0 {
            let why = "it is missing, but the write-ahead log has records".to_owned();
            return Err(OpenError::Damaged { path: self.layout.node(), why });
        }
        for entry in entries {
            let path = folder.join(&entry.name);
            self.disk.remove(&path).map_err(|source| unusable(&path, source))?;
        }
        Ok(())
    }

    /// Which files of which topics there are.
    fn scan(&self) -> Result<Scan, OpenError> {
        let mut scan = log::scan(self.disk.as_ref(), &self.layout.data)?;
        match scan.folders.pop() {
            // Better now than when there is a message for the topic.
            Some(folder) => Err(OpenError::Folder { path: self.layout.data.join(folder) }),
            None => Ok(scan),
        }
    }

    fn adopt(&self, shards: &mut [Shard]) -> Result<Found, OpenError> {
        let scan = self.scan()?;
        if scan.topics.is_empty() {
            return Ok(Found::New);
        }
        let (mut messages, mut torn) = (0, 0);
        let topics = scan.topics.len();
        self.claim(scan.topics.keys())?;
        for (name, files) in &scan.topics {
            let (log, adopted) = TopicLog::adopt(
                Arc::clone(self.disk),
                &self.layout.data,
                name.clone(),
                self.settings.log,
                Arc::clone(&self.settings.tail),
                files,
            )?;
            messages += adopted.records;
            torn += usize::from(adopted.torn.is_some());
            let topic = self.workshop().with_log(name, log);
            self.shard_of(shards, name).topics.insert(topic, Lsn::default());
        }
        Ok(Found::Adopted { topics, messages, torn })
    }

    /// A directory that was served before.
    fn reopen(self, node: Node) -> Result<Opened, OpenError> {
        let disk = self.disk.as_ref();
        let folder = self.layout.checkpoints();
        let checkpoint = Checkpoint::newest(disk, &folder)?.ok_or_else(|| OpenError::Damaged {
            path: folder.clone(),
            why: "there is no checkpoint".to_owned(),
        })?;
        let mut examined = wal::examine(
            Arc::clone(self.disk),
            &self.layout.wal(),
            self.settings.wal,
            checkpoint.covered(),
        )?;
        // The older one as well, before anything is changed.
        let checkpoints = Checkpoints::open(self.disk, &self.layout, self.now.moment)?;
        if self.casing.is_some() {
            self.claim(&known_topics(&checkpoint, &examined)?)?;
        }
        let mut shards = self.shards();
        self.open_logs(&checkpoint, &mut shards)?;
        self.adopt_news(&checkpoint, &examined, &mut shards)?;
        // What was cut, and what a start that was cut short has changed.
        self.disk
            .sync_dir(&self.layout.data)
            .map_err(|source| unusable(&self.layout.data, source))?;
        let mut records = 0;
        examined.replay(&mut |record| {
            records += 1;
            let mut all = shards.iter_mut();
            all.try_for_each(|shard| shard.replay(self.now, &record)).map_err(OpenError::from)
        })?;
        let torn_bytes = examined.torn().map_or(0, |torn: &Torn| torn.bytes);
        // A removed checkpoint must not come back after a power cut, when its log is freed.
        disk.sync_dir(&folder).map_err(|source| unusable(&folder, source))?;
        examined.keep_from(checkpoints.kept_from());
        let wal = examined.finish()?;
        for shard in &mut shards {
            shard.resume(wal.last())?;
        }
        let found = if checkpoint.is_clean && records == 0 && torn_bytes == 0 {
            Found::Clean
        } else {
            Found::Recovered { records, torn_bytes }
        };
        Ok(Opened { shards, wal, found, checkpoints, lock: self.lock, node })
    }

    /// Opens the logs that the checkpoint knows, and takes from them what it does not cover.
    fn open_logs(&self, checkpoint: &Checkpoint, shards: &mut [Shard]) -> Result<(), OpenError> {
        let damaged = |why: String| OpenError::Damaged { path: self.layout.checkpoints(), why };
        let scan = self.scan()?;
        let files = |name: &TopicName| scan.topics.get(name).map_or(&[][..], Vec::as_slice);
        let mut names = BTreeSet::new();
        let mut opened = Vec::new();
        for (lsn, state) in &checkpoint.topics {
            let name = parse_topic(&state.topic).map_err(damaged)?;
            if !names.insert(name.clone()) {
                return Err(damaged(format!("topic {name} is there twice")));
            }
            let log = self.open_log(&name, &state.mark, files(&name))?;
            let mut topic = self.workshop().with_log(&name, log);
            for (group, progress) in &state.groups {
                let group = GroupName::parse(group.as_bytes())
                    .map_err(|bad| damaged(format!("group {group:?}: {bad}")))?;
                topic.restore_group(group, progress.clone());
            }
            opened.push((*lsn, topic));
        }
        for (lsn, mut topic) in opened {
            let name = topic.name().clone();
            topic.log_mut().cut(files(&name))?;
            self.shard_of(shards, &name).topics.insert(topic, lsn);
        }
        for (number, at) in &checkpoint.shards {
            if let Some(shard) = shards.get_mut(*number as usize) {
                shard.set_applied(*at);
            }
        }
        Ok(())
    }

    fn open_log(
        &self,
        name: &TopicName,
        mark: &LogMark,
        files: &[SegmentFile],
    ) -> Result<TopicLog, LogError> {
        TopicLog::open(
            Arc::clone(self.disk),
            &self.layout.data,
            name.clone(),
            self.settings.log,
            Arc::clone(&self.settings.tail),
            mark,
            files,
        )
    }

    /// Files that the checkpoint does not know: those of topics that the log is about to make
    /// again are emptied; what nobody knows is put aside, never deleted and never served.
    fn adopt_news(
        &self,
        checkpoint: &Checkpoint,
        examined: &Examined,
        shards: &mut [Shard],
    ) -> Result<(), OpenError> {
        let scan = self.scan()?;
        let known: BTreeSet<&str> =
            checkpoint.topics.iter().map(|(_, state)| state.topic.as_str()).collect();
        let strangers: Vec<_> =
            scan.topics.iter().filter(|(name, _)| !known.contains(name.as_str())).collect();
        if strangers.is_empty() {
            return Ok(());
        }
        let mut coming = BTreeSet::new();
        examined.replay(&mut |record| {
            topics_in(record.payload, &mut coming).map_err(OpenError::from)
        })?;
        for (name, files) in strangers {
            if coming.contains(name) {
                let mut log = self.open_log(name, &LogMark::default(), files)?;
                log.cut(files)?;
                let topic = self.workshop().with_log(name, log);
                self.shard_of(shards, name).topics.insert(topic, Lsn::default());
                continue;
            }
            for file in files {
                self.put_aside(&file.name)?;
            }
        }
        Ok(())
    }

    fn put_aside(&self, name: &str) -> Result<(), OpenError> {
        let from = self.layout.data.join(name);
        let aside = self.layout.quarantine();
        let to = aside.join(format!("{}-{name}", self.now.wall.as_micros()));
        tracing::warn!(event = "file_put_aside", from = %from.display(), to = %to.display(),
            "no checkpoint and no log record knows this file");
        self.disk.rename(&from, &to).map_err(|source| unusable(&from, source))?;
        for folder in [&aside, &self.layout.data] {
            self.disk.sync_dir(folder).map_err(|source| unusable(folder, source))?;
        }
        Ok(())
    }

    fn workshop(&self) -> Workshop {
        self.settings.workshop(self.disk, self.casing.as_ref())
    }

    /// These topics exist.
    fn claim<'t>(&self, topics: impl IntoIterator<Item = &'t TopicName>) -> Result<(), OpenError> {
        let Some(casing) = &self.casing else { return Ok(()) };
        let path = || self.layout.data.clone();
        let claimed = topics.into_iter().try_for_each(|topic| casing.claim(topic));
        claimed.map_err(|clash| OpenError::FoldsCase { path: path(), clash })
    }

    fn shards(&self) -> Vec<Shard> {
        (0..self.settings.shards)
            .map(|number| {
                let topics = Topics::new(self.workshop(), number, self.settings.shards);
                let gate = Arc::clone(&self.settings.gate);
                Shard::new(number, topics, self.settings.prefetch, gate)
            })
            .collect()
    }

    fn shard_of<'s>(&self, shards: &'s mut [Shard], topic: &TopicName) -> &'s mut Shard {
        &mut shards[super::topics::shard_of(topic, self.settings.shards) as usize]
    }
}

/// The topics of a directory that was served before.
fn known_topics(
    checkpoint: &Checkpoint,
    examined: &Examined,
) -> Result<BTreeSet<TopicName>, OpenError> {
    // What is no topic's name is damage, and found when it is opened.
    let named = checkpoint.topics.iter().filter_map(|(_, state)| parse_topic(&state.topic).ok());
    let mut topics = named.collect();
    examined
        .replay(&mut |record| topics_in(record.payload, &mut topics).map_err(OpenError::from))?;
    Ok(topics)
}

fn parse_topic(name: &str) -> Result<TopicName, String> {
    TopicName::parse(name.as_bytes()).map_err(|bad| format!("topic {name:?}: {bad}"))
}

/// Creates a folder. It and those above it that are new are there after a power cut only if each is
/// synced in the one above it. The folder itself may be from a start that came to nothing and, unless it
/// `is_certain` that it was served or they were seen to, all of those above it.
fn create_durably(disk: &dyn Disk, folder: &Path, is_certain: bool) -> Result<(), OpenError> {
    let is_named = |path: &&Path| !path.as_os_str().is_empty();
    let is_new = |path: &&Path| disk.list(path).is_err();
    let new = folder.ancestors().filter(is_named).take_while(is_new).count();
    disk.create_dir(folder).map_err(|source| unusable(folder, source))?;
    let wanted = if is_certain { new.max(1) } else { usize::MAX };
    for (number, path) in folder.ancestors().filter(is_named).take(wanted).enumerate() {
        let above = path.parent().filter(is_named).unwrap_or(Path::new("."));
        match disk.sync_dir(above) {
            // In one that this user can't even open, an earlier start made nothing.
            Err(error) if number >= new && is_foreign(&error) => {}
            synced => synced.map_err(|source| unusable(above, source))?,
        }
    }
    Ok(())
}

/// Whether a folder can't be synced since it is somebody else's, or on a file system without that.
fn is_foreign(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | InvalidInput | Unsupported)
}

/// Collects the topics that a record's commands are about.
pub(crate) fn topics_in(payload: &[u8], into: &mut BTreeSet<TopicName>) -> Result<(), ShardError> {
    let mut reader = crate::topic::CommandReader::new(payload);
    while let Some(command) = reader.next()? {
        if let crate::topic::Command::Topic(name) = command {
            into.insert(name);
        }
    }
    Ok(())
}

/// Reads the identity of a directory; `None` if it has none.
pub(crate) fn read_node(disk: &dyn Disk, layout: &Layout) -> Result<Option<Node>, OpenError> {
    let path = layout.node();
    let bytes = match disk::read_all(disk, &path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(unusable(&path, source)),
    };
    let node: Node = serde_json::from_slice(&bytes)
        .map_err(|e| OpenError::Damaged { path: path.clone(), why: e.to_string() })?;
    if node.crc != node.checksum() {
        let why = format!("the checksum is {} where {} is written", node.checksum(), node.crc);
        return Err(OpenError::Damaged { path, why });
    }
    if node.format > FORMAT {
        return Err(OpenError::Newer { path, format: node.format });
    }
    Ok(Some(node))
}

fn unusable(path: &Path, source: io::Error) -> OpenError {
    OpenError::Unusable { path: path.to_owned(), source }
}
