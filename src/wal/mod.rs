//! stub
#![allow(missing_docs)]
use std::{path::Path, sync::Arc}; use crate::disk::Disk; use serde::{Serialize,Deserialize};
#[derive(Clone,Copy,PartialEq,Eq,PartialOrd,Ord,Debug,Default,Serialize,Deserialize)] pub struct Lsn(u64); impl Lsn { pub fn new(n:u64)->Self{Self(n)} pub fn get(self)->u64{self.0} }
#[derive(Debug,thiserror::Error)] #[error("x")] pub struct WalError; impl WalError { pub fn is_damage(&self)->bool{false} pub fn is_no_space(&self)->bool{false} }
#[derive(Clone,Copy,Debug)] pub struct Settings { pub segment_bytes: u64 }
pub struct Entry<'a> { pub shard: u32, pub term: u64, pub index: u64, pub payload: &'a [u8] }
pub struct Record<'a> { pub lsn: Lsn, pub shard: u32, pub term: u64, pub index: u64, pub payload: &'a [u8] }
#[derive(Debug)] pub struct Spare; #[derive(Debug)] pub struct SpareJob; impl SpareJob { pub fn run(self)->Result<Spare,WalError>{Err(WalError)} }
#[derive(Debug)] pub struct Wal; #[derive(Debug)] pub struct Examined; pub struct Torn { pub bytes: u64 }
impl Wal { pub fn create(_:Arc<dyn Disk>,_:&Path,_:u64,_:Settings)->Result<Wal,WalError>{Err(WalError)} pub fn append(&mut self,_:&[Entry<'_>])->Result<Lsn,WalError>{Err(WalError)} pub fn sync(&mut self)->Result<Lsn,WalError>{Err(WalError)} pub fn last(&self)->Lsn{Lsn(0)} pub fn durable(&self)->Lsn{Lsn(0)} pub fn free_through(&mut self,_:Lsn)->Result<(),WalError>{Ok(())} pub fn needs_spare(&self)->bool{false} pub fn spare_job(&self)->Option<SpareJob>{None} pub fn add_spare(&mut self,_:Spare){} pub fn bytes_written(&self)->u64{0} }
pub fn examine(_:Arc<dyn Disk>,_:&Path,_:Settings,_:Lsn)->Result<Examined,WalError>{Err(WalError)}
impl Examined { pub fn replay<E>(&self,_:&mut dyn FnMut(Record<'_>)->Result<(),E>)->Result<(),E>{Ok(())} pub fn torn(&self)->Option<&Torn>{None} pub fn finish(self)->Result<Wal,WalError>{Err(WalError)} }
