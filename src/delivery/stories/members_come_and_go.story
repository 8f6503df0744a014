# a closed connection gives its messages back at once
join a
join b
publish 4
---
  0.000  report Joined { member: "a", members: 1 }
  0.000  report Joined { member: "b", members: 2 }
  0.000  → a #1 try 1/4, within 30s
  0.000  → b #2 try 1/4, within 30s
  0.000  → a #3 try 1/4, within 30s
  0.000  → b #4 try 1/4, within 30s

leave a
---
  0.000  report Left { member: "a", why: Closed, held: 2, members: 1 }
  0.000  commit #1 attempt 1 by a: Disconnect
  0.000  commit #3 attempt 1 by a: Disconnect
  0.000  report Redistributed { offset: Offset(1), to: "b" }
  0.000  → b #1 try 1/4, within 30s
  0.000  report Redistributed { offset: Offset(3), to: "b" }
  0.000  → b #3 try 1/4, within 30s

# so does a silent one; it is a member again when it is heard
silent b
---
  0.000  report Left { member: "b", why: Silent, held: 4, members: 0 }
  0.000  commit #1 attempt 2 by b: Dead
  0.000  commit #2 attempt 1 by b: Dead
  0.000  commit #3 attempt 2 by b: Dead
  0.000  commit #4 attempt 1 by b: Dead

join b
---
  0.000  report Joined { member: "b", members: 1 }
  0.000  → b #1 try 1/4, within 30s
  0.000  → b #2 try 1/4, within 30s
  0.000  → b #3 try 1/4, within 30s
  0.000  → b #4 try 1/4, within 30s

# nobody there is no failure: messages wait
leave b
publish 3
pass 600s
---
  0.000  report Left { member: "b", why: Closed, held: 4, members: 0 }
  0.000  commit #1 attempt 3 by b: Disconnect
  0.000  commit #2 attempt 2 by b: Disconnect
  0.000  commit #3 attempt 3 by b: Disconnect
  0.000  commit #4 attempt 2 by b: Disconnect

join c credit=10
---
600.000  report Joined { member: "c", members: 1 }
600.000  report Redistributed { offset: Offset(1), to: "c" }
600.000  → c #1 try 1/4, within 30s
600.000  report Redistributed { offset: Offset(2), to: "c" }
600.000  → c #2 try 1/4, within 30s
600.000  report Redistributed { offset: Offset(3), to: "c" }
600.000  → c #3 try 1/4, within 30s
600.000  report Redistributed { offset: Offset(4), to: "c" }
600.000  → c #4 try 1/4, within 30s
600.000  → c #5 try 1/4, within 30s
600.000  → c #6 try 1/4, within 30s
600.000  → c #7 try 1/4, within 30s

# leaving and timing out: only the timeout counts
pass 30s
---
630.000  commit #1 attempt 4 by c: Timeout
630.000  report Retry { offset: Offset(1), retry: 1, of: 3, delay: 1s, outcome: Timeout }
630.000  commit #2 attempt 3 by c: Timeout
630.000  report Retry { offset: Offset(2), retry: 1, of: 3, delay: 1s, outcome: Timeout }
630.000  commit #3 attempt 4 by c: Timeout
630.000  report Retry { offset: Offset(3), retry: 1, of: 3, delay: 1s, outcome: Timeout }
630.000  commit #4 attempt 3 by c: Timeout
630.000  report Retry { offset: Offset(4), retry: 1, of: 3, delay: 1s, outcome: Timeout }
630.000  commit #5 attempt 1 by c: Timeout
630.000  report Retry { offset: Offset(5), retry: 1, of: 3, delay: 1s, outcome: Timeout }
630.000  commit #6 attempt 1 by c: Timeout
630.000  report Retry { offset: Offset(6), retry: 1, of: 3, delay: 1s, outcome: Timeout }
630.000  commit #7 attempt 1 by c: Timeout
630.000  report Retry { offset: Offset(7), retry: 1, of: 3, delay: 1s, outcome: Timeout }

leave c
join d credit=10
pass 2s
---
630.000  report Left { member: "c", why: Closed, held: 0, members: 0 }
630.000  report Joined { member: "d", members: 1 }
631.000  → d #1 try 2/4, within 30s
631.000  → d #2 try 2/4, within 30s
631.000  → d #3 try 2/4, within 30s
631.000  → d #4 try 2/4, within 30s
631.000  → d #5 try 2/4, within 30s
631.000  → d #6 try 2/4, within 30s
631.000  → d #7 try 2/4, within 30s
