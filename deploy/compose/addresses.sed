# Where the machines of deploy/nginx are in the network of compose.yaml.
s/10\.0\.0\.1([123]):3000/10.213.7.2\1:3000/
s/10\.0\.0\.1([123])/10.213.7.1\1/
