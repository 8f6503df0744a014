//! What a test leaves in the log.

/// What is logged while `work` is done, by this thread.
pub(super) fn logged(work: impl FnOnce()) -> String {
    let (sender, lines) = std::sync::mpsc::channel::<Vec<u8>>();
    let writer = move || Lines(sender.clone());
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(writer)
        .finish();
    tracing::subscriber::with_default(subscriber, work);
    String::from_utf8(lines.try_iter().flatten().collect()).unwrap()
}

struct Lines(std::sync::mpsc::Sender<Vec<u8>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes.to_vec()).unwrap();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
