# four deliveries, 1, 2 and 4 s before the retries, then the dead letters
join a
publish 1
pass 29s
---
  0.000  report Joined { member: "a", members: 1 }
  0.000  → a #1 try 1/4, within 30s

pass 1s
---
 30.000  commit #1 attempt 1 by a: Timeout
 30.000  report Retry { offset: Offset(1), retry: 1, of: 3, delay: 1s, outcome: Timeout }

pass 1s
---
 31.000  → a #1 try 2/4, within 30s

pass 32s
---
 61.000  commit #1 attempt 2 by a: Timeout
 61.000  report Retry { offset: Offset(1), retry: 2, of: 3, delay: 2s, outcome: Timeout }
 63.000  → a #1 try 3/4, within 30s

pass 34s
---
 93.000  commit #1 attempt 3 by a: Timeout
 93.000  report Retry { offset: Offset(1), retry: 3, of: 3, delay: 4s, outcome: Timeout }
 97.000  → a #1 try 4/4, within 30s

pass 30s
---
127.000  commit #1 dead letter after 4, a: Timeout
127.000  report DeadLettered { offset: Offset(1), attempts: 4 }

pass 300s
---

# a retry goes to another member than the last
join b
publish 1
pass 31s
---
427.000  report Joined { member: "b", members: 2 }
427.000  → b #2 try 1/4, within 30s
457.000  commit #2 attempt 1 by b: Timeout
457.000  report Retry { offset: Offset(2), retry: 1, of: 3, delay: 1s, outcome: Timeout }
458.000  → a #2 try 2/4, within 30s

# a retry goes before new messages
ack b 2
leave a
leave b
---
458.000  commit #2 settled
458.000  report LateAck { offset: Offset(2) }
458.000  answer Acked { late: true }
458.000  report Left { member: "a", why: Closed, held: 0, members: 1 }
458.000  report Left { member: "b", why: Closed, held: 0, members: 0 }

join c credit=1
publish 2
---
458.000  report Joined { member: "c", members: 1 }
458.000  → c #3 try 1/4, within 30s

pass 30s
---
488.000  commit #3 attempt 1 by c: Timeout
488.000  report Retry { offset: Offset(3), retry: 1, of: 3, delay: 1s, outcome: Timeout }
488.000  → c #4 try 1/4, within 30s

ack c 4
---
488.000  commit #4 settled
488.000  answer Acked { late: false }

pass 1s
---
489.000  → c #3 try 2/4, within 30s
