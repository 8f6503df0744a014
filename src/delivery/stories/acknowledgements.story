# credit is back at once, the floor moves when it is committed
join a credit=1
publish 3
hold
---
  0.000  report Joined { member: "a", members: 1 }
  0.000  → a #1 try 1/4, within 30s

ack a 1
---
  0.000  commit #1 settled
  0.000  answer Acked { late: false }
  0.000  → a #2 try 1/4, within 30s

ack a 2
---
  0.000  commit #2 settled
  0.000  answer Acked { late: false }
  0.000  → a #3 try 1/4, within 30s

# what is being settled is no longer pending
ack a 1
---
  0.000  answer NotPending

commit
---

# never delivered, settled long ago
ack a 9
ack a 1
---
  0.000  answer NotPending
  0.000  answer NotPending

# late, but before anybody has it again
pass 30s
---
 30.000  commit #3 attempt 1 by a: Timeout
 30.000  report Retry { offset: Offset(3), retry: 1, of: 3, delay: 1s, outcome: Timeout }

ack a 3
---
 30.000  commit #3 settled
 30.000  report LateAck { offset: Offset(3) }
 30.000  answer Acked { late: true }

# late, while another has it: it counts, and the other's lease ends
join b credit=1
publish 1
---
 30.000  report Joined { member: "b", members: 2 }
 30.000  → b #4 try 1/4, within 30s

pass 31s
---
 60.000  commit #4 attempt 1 by b: Timeout
 60.000  report Retry { offset: Offset(4), retry: 1, of: 3, delay: 1s, outcome: Timeout }
 61.000  → a #4 try 2/4, within 30s

ack a 4
ack b 4
---
 61.000  commit #4 settled
 61.000  answer Acked { late: false }
 61.000  answer NotPending
