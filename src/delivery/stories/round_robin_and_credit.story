# three members, four messages: one, two, three, one
join a
join b
join c
publish 4
---
  0.000  report Joined { member: "a", members: 1 }
  0.000  report Joined { member: "b", members: 2 }
  0.000  report Joined { member: "c", members: 3 }
  0.000  → a #1 try 1/4, within 30s
  0.000  → b #2 try 1/4, within 30s
  0.000  → c #3 try 1/4, within 30s
  0.000  → a #4 try 1/4, within 30s

# a member without credit is passed over
ack a 1
ack a 4
ack b 2
ack c 3
---
  0.000  commit #1 settled
  0.000  answer Acked { late: false }
  0.000  commit #4 settled
  0.000  answer Acked { late: false }
  0.000  commit #2 settled
  0.000  answer Acked { late: false }
  0.000  commit #3 settled
  0.000  answer Acked { late: false }

join d credit=1
publish 4
---
  0.000  report Joined { member: "d", members: 4 }
  0.000  → b #5 try 1/4, within 30s
  0.000  → c #6 try 1/4, within 30s
  0.000  → d #7 try 1/4, within 30s
  0.000  → a #8 try 1/4, within 30s

publish 9
---
  0.000  → b #9 try 1/4, within 30s
  0.000  → c #10 try 1/4, within 30s
  0.000  → a #11 try 1/4, within 30s
  0.000  → b #12 try 1/4, within 30s
  0.000  → c #13 try 1/4, within 30s
  0.000  → a #14 try 1/4, within 30s
  0.000  → b #15 try 1/4, within 30s
  0.000  → c #16 try 1/4, within 30s
  0.000  → a #17 try 1/4, within 30s

# with nobody's credit left, messages wait, and nothing is skipped
publish 10
---
  0.000  → b #18 try 1/4, within 30s
  0.000  → c #19 try 1/4, within 30s
  0.000  → a #20 try 1/4, within 30s

ack d 8
---
  0.000  commit #8 settled
  0.000  report LateAck { offset: Offset(8) }
  0.000  answer Acked { late: true }
  0.000  → a #21 try 1/4, within 30s
