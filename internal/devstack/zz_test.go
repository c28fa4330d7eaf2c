package devstack
import ("testing";"time";"os/exec";amqp "github.com/rabbitmq/amqp091-go")
func TestZZ(t *testing.T){
 k,o:=setup(t); ctx:=testContext(t)
 publish(t,k,"kept")
 for i:=range 6 {
  stop:=k.StopBroker; name:="stop"
  if i%2==1 {stop=k.KillBroker;name="kill"}
  if err:=stop(ctx);err!=nil{t.Fatal(err)}
  if err:=k.StartBroker(ctx);err!=nil{t.Fatal(err)}
  t0:=time.Now()
  n:=-1
  done:=time.After(15*time.Second)
  func(){ for { ch:=make(chan int,1); go func(){ ch<-probe(k) }(); select{case n=<-ch: if n>0 {return}; time.Sleep(100*time.Millisecond); case <-done: return} } }()
  t.Log(i,name,n,time.Since(t0))
  if n<1 { exec.Command("cp","-r",o.Dir+"/logs","/tmp/cgo/faillogs").Run(); t.Fatal("lost") }
 }
}
func probe(k *Stack) int {
 conn,err:=amqp.Dial(k.AMQPURL); if err!=nil{return -2}
 defer conn.Close()
 ch,_:=conn.Channel()
 q,err:=ch.QueueDeclarePassive("kept",true,false,false,false,nil)
 if err!=nil{return -3}
 return q.Messages
}
